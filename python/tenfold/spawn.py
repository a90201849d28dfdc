"""What a child with a fresh interpreter does until it is a process like any other.

    parent                                   child
    exec python -c ◀── get_command_line      spawn_main
    get_preparation_data ── pickled ───────▶ prepare           the parent's state, its main module
    the process object ──── pickled ───────▶ process._bootstrap

The fork server's children come the same way, but for the exec.

A child imports little (`_deferred`), and does without the garbage collector meanwhile.
"""

import _pickle
import io
import os
import sys
import types

from . import (  # noqa: F401  (adopted code looks here)
    _alias,
    _deferred,
    _family,
    get_start_method,
    set_start_method,
)
from ._original import adopt, adopt_seeing, mirror, original, overlay

with _deferred.deferring():
    std = mirror(globals(), "spawn")

# Where a child finds this package, whatever made it importable here.
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# How a child's program begins, and the same without the garbage collector: to freeze and unfreeze
# what has been imported makes it old, which a child's young objects are looked through without.
_IMPORT = "from multiprocessing.spawn import spawn_main;"
_IMPORT_UNCOLLECTED = (
    f"import gc; collects = gc.isenabled(); gc.disable(); {_IMPORT} "
    "gc.freeze(); gc.unfreeze(); collects and gc.enable();"
)


def child_program(text):
    """Turn a program that imports from multiprocessing into one that imports from this package."""
    ours = f"import sys; sys.path.append({_FOLDER!r}); from tenfold."
    return text.replace("from multiprocessing.", ours, 1)


def get_command_line(**kwds):
    """Return the command that starts a child, as a list."""
    return [
        child_program(word.replace(_IMPORT, _IMPORT_UNCOLLECTED)) if isinstance(word, str) else word
        for word in std.get_command_line(**kwds)
    ]


_standard_preparation_data = adopt(std.get_preparation_data, globals())


def get_preparation_data(name):
    """Return what a child must know before it can unpickle anything of the parent's."""
    data = _standard_preparation_data(name)
    data["tenfold_installed"] = _alias.installed()
    data["tenfold_invitation"] = _family.invitation()[0]
    return data


def prepare(data):
    """Make this process what its parent was, as far as `data` tells."""
    if "tenfold_invitation" in data:
        _family.arrive(data["tenfold_invitation"])
    if data.get("tenfold_installed"):
        _alias.install()
    _standard_prepare(data)


def _run_path(path, run_name):
    """Run the main module; stands in for `runpy.run_path` below.

    That one asks pkgutil what it is given, which imports typing, and with it re and enum.
    """
    source = _source_of_file(path)
    if source is None:
        return runpy.run_path(path, run_name=run_name)  # noqa: F821  (mirrored)
    code = compile(source, path, "exec")
    return runpy._run_module_code(code, None, run_name, pkg_name="", script_name=path)  # noqa: F821


def _source_of_file(path):
    """Read a Python file; None if it is a folder, an archive or compiled, which have zero bytes."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return None
    with io.open_code(path) as file:
        source = file.read()
    return None if b"\0" in source else source


def spawn_main(pipe_handle, parent_pid=None, tracker_fd=None):
    """Be the child that the command line starts."""

    def use_tracker(resource_tracker):
        resource_tracker._resource_tracker._fd = tracker_fd

    assert std.is_forking(sys.argv), "Not forking"
    with _deferred.deferring():
        tracker = original("resource_tracker")
    _deferred.after_body(tracker, use_tracker)
    sys.exit(_main(pipe_handle, os.dup(pipe_handle)))


# The standard library's code, with the functions above.
_fixup_main_from_path = adopt_seeing(
    std._fixup_main_from_path,
    std,
    __name__,
    runpy=overlay(runpy, run_path=_run_path),  # noqa: F821
)
import_main_path = adopt(std.import_main_path, globals())
_standard_prepare = adopt(std.prepare, globals())
_main = adopt(std._main, {**globals(), "reduction": types.SimpleNamespace(pickle=_pickle)})
freeze_support = adopt(std.freeze_support, globals())
