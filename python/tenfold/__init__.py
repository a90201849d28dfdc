"""Processes, pools, queues, locks and shared objects: `multiprocessing` on tenfold's engine.

    from tenfold import Pool          # the only line that changes

All public names of `multiprocessing` are here, with the same signatures and meaning. `install()`,
or `python -m tenfold program.py`, makes `import multiprocessing` itself mean this package.
"""

from . import context, process, reduction  # noqa: F401  (attributes of multiprocessing, too)
from ._alias import install  # noqa: F401

__all__ = [name for name in dir(context._default_context) if not name.startswith("_")]
globals().update((name, getattr(context._default_context, name)) for name in __all__)

# Levels of multiprocessing's logger below those of `logging`.
SUBDEBUG = 5
SUBWARNING = 25
