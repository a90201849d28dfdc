"""Pickling for everything that travels: the native codec calls it for values that are not plain.

Registered reducers (`copyreg`, `multiprocessing.reduction.register`) hold as in the standard
library; large buffers go out of band (pickle protocol 5); what plain pickle cannot do (lambdas,
closures), cloudpickle does if it is installed.
"""

import copyreg
import io
import pickle

from . import reduction

__all__ = ["dumps"]

# Smaller buffers are cheaper inside of the pickle.
OUT_OF_BAND = 64 * 1024

_extra = reduction.ForkingPickler._extra_reducers
_copied_from = None
_table = {}


def _dispatch_table():
    """Both registries in one dict: a chain of two would cost an exception for each object."""
    global _copied_from, _table
    now = (copyreg.dispatch_table, _extra)
    if _copied_from != now:
        _copied_from = tuple(table.copy() for table in now)
        _table = {**copyreg.dispatch_table, **_extra}
    return _table


def _dump(pickler_class, obj, table):
    file = io.BytesIO()
    buffers = []

    def keep(buffer):
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    pickler = pickler_class(file, 5, buffer_callback=keep)
    pickler.dispatch_table = table
    pickler.dump(obj)
    return file.getvalue(), buffers or None


def dumps(obj):
    """Return `obj` as a pickle and a list of the buffers that are not in it, or None."""
    try:
        return _dump(pickle.Pickler, obj, _dispatch_table())
    except (pickle.PicklingError, AttributeError, TypeError):
        try:
            import cloudpickle
        except ImportError:
            cloudpickle = None
        if cloudpickle is None:
            raise
        table = {**cloudpickle.CloudPickler.dispatch_table, **_dispatch_table()}
        try:
            return _dump(cloudpickle.CloudPickler, obj, table)
        except (pickle.PicklingError, AttributeError, TypeError):
            pass
        raise
