"""Pickling for everything that travels: the native codec calls it for values that are not plain.

Registered reducers (`copyreg`, `multiprocessing.reduction.register`) hold as in the standard
library; large buffers go out of band (pickle protocol 5); what plain pickle cannot do (lambdas,
closures), cloudpickle does if it is installed.
"""

import copyreg
import pickle

from . import _native, reduction

__all__ = ["Pickler", "dump_by_cloudpickle", "received"]


class Pickler(pickle.Pickler):
    """A pickler that knows the reducers of `multiprocessing.reduction` and those of `copyreg`."""

    __slots__ = ()
    dispatch_table = _native.Reducers(
        reduction.ForkingPickler._extra_reducers, copyreg.dispatch_table
    )


def dump_by_cloudpickle(obj, sink):
    """Pickle `obj` to `sink` if cloudpickle is installed; return whether it is."""
    try:
        import cloudpickle
    except ImportError:
        return False
    pickler = cloudpickle.CloudPickler(sink, 5, buffer_callback=sink)
    extra = reduction.ForkingPickler._extra_reducers
    pickler.dispatch_table = {**cloudpickle.CloudPickler.dispatch_table, **extra}
    pickler.dump(obj)
    return True


def received(buffer):
    """Return a buffer that has travelled as one."""
    return buffer
