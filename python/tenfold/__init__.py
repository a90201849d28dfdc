"""Processes, pools, queues, locks and shared objects: `multiprocessing` on tenfold's engine.

    from tenfold import Pool          # the only line that changes

All public names of `multiprocessing` are here, with the same signatures and meaning. `install()`,
or `python -m tenfold program.py`, makes `import multiprocessing` itself mean this package.
"""

import importlib

from . import context, process, reduction  # noqa: F401  (attributes of multiprocessing, too)
from ._alias import install
from ._faults import BrokenPool, PoolTerminated, TaskCancelled, TaskTimeout, WorkerDied
from ._native import (
    FamilyEnded,
    HeapFull,
    OwnerDied,
    StaleHandle,
    heap_stats,
    set_heap_limit,
)

__all__ = [name for name in dir(context._default_context) if not name.startswith("_")]
globals().update((name, getattr(context._default_context, name)) for name in __all__)
__all__ += ["BrokenPool", "PoolTerminated", "TaskCancelled", "TaskTimeout", "WorkerDied"]
__all__ += ["FamilyEnded", "HeapFull", "OwnerDied", "StaleHandle"]
__all__ += ["heap_stats", "install", "set_heap_limit"]

# Levels of multiprocessing's logger below those of `logging`.
SUBDEBUG = 5
SUBWARNING = 25

_SUBMODULES = {
    "connection",
    "dummy",
    "forkserver",
    "heap",
    "managers",
    "pool",
    "popen_fork",
    "popen_forkserver",
    "popen_spawn_posix",
    "queues",
    "resource_sharer",
    "resource_tracker",
    "shared_memory",
    "sharedctypes",
    "spawn",
    "synchronize",
    "util",
}


def __getattr__(name):
    # `multiprocessing.util` and others come into being as the standard library's modules import
    # each other, and programs rely on that. Ours import less, so they are made when asked for.
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
