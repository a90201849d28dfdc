"""What a child with a fresh interpreter does until it is a process like any other.

    parent                                   child
    exec python -c ◀── get_command_line      spawn_main
    get_preparation_data ── pickled ───────▶ prepare           the parent's state, its main module
    the process object ──── pickled ───────▶ process._bootstrap

The fork server's children come the same way, but for the exec.
"""

import os

from . import (  # noqa: F401  (adopted code looks here)
    _alias,
    _family,
    get_start_method,
    set_start_method,
)
from ._original import adopt, mirror

std = mirror(globals(), "spawn")

# Where a child finds this package, whatever made it importable here.
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def child_program(text):
    """Turn a program that imports from multiprocessing into one that imports from this package."""
    ours = f"import sys; sys.path.append({_FOLDER!r}); from tenfold."
    return text.replace("from multiprocessing.", ours, 1)


def get_command_line(**kwds):
    """Return the command that starts a child, as a list."""
    return [
        child_program(word) if isinstance(word, str) else word
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


# The standard library's code, with the functions above.
_standard_prepare = adopt(std.prepare, globals())
_main = adopt(std._main, globals())
spawn_main = adopt(std.spawn_main, globals())
freeze_support = adopt(std.freeze_support, globals())
