"""Modules that wait for their first use, so that a child with a fresh interpreter begins sooner.

multiprocessing's modules import at their head what most children never use: `pickle`, `signal`,
`socket`, `subprocess`, and with them `enum`, `locale`, `re`, `selectors`. For a short child that is
a third of its life. What is deferred has its place in `sys.modules` and is the module object
itself, but empty: its body runs in it, once, at the first look for a name.

    import multiprocessing.reduction           ──▶ an empty module, of class `_Deferred`
    multiprocessing.reduction.ForkingPickler   ──▶ its body runs, its class is that of any module

Nothing is left then that could tell it from a module that was imported at once. The same is done by
importlib.util.LazyLoader, but there the second import of a module runs its body, and up to Python
3.11 two threads run it twice.
"""

import _signal
import _thread
import os
import sys
import types
from importlib.machinery import FrozenImporter, SourceFileLoader

__all__ = ["after_body", "deferring"]


def _args_from_interpreter_flags():
    import subprocess

    return subprocess._args_from_interpreter_flags()


# What may be deferred, and what others take from it while they are imported themselves.
_LENT = {
    "multiprocessing.reduction": {},
    "multiprocessing.resource_tracker": {},
    "runpy": {},
    # multiprocessing.process makes a table of the signals' names.
    "signal": {name: value for name, value in vars(_signal).items() if name.startswith("SIG")},
    "subprocess": {"_args_from_interpreter_flags": _args_from_interpreter_flags},
}
# Of the names with underscores, those that a body makes or changes. The others, such as __spec__,
# are looked for in all modules, and do not tell that this one is needed.
_OF_BODY = frozenset({"__all__", "__annotations__", "__builtins__", "__dict__", "__doc__"})

# Held by the thread that runs a body. A process that is forked meanwhile has no such thread, and
# runs it again. What is registered must not lead to modules: it outlives them at the process's end.
_lock = _thread.RLock()
_running = []
os.register_at_fork(after_in_child=_lock._at_fork_reinit)
os.register_at_fork(after_in_child=_running.clear)
_hooks = {}


class _Deferred(types.ModuleType):
    """A module whose body has not run."""

    def __getattribute__(self, name):
        if not name.startswith("__") or name in _OF_BODY:
            _run(self)
        return types.ModuleType.__getattribute__(self, name)

    def __setattr__(self, name, value):
        _run(self)
        types.ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name):
        _run(self)
        types.ModuleType.__delattr__(self, name)


def _run(module):
    """Run the body of a module, unless that has been done or this thread is at it."""
    with _lock:
        if type(module) is not _Deferred or module in _running:
            return
        _running.append(module)
        try:
            module.__spec__.loader.exec_module(module)
            types.ModuleType.__setattr__(module, "__class__", types.ModuleType)
        finally:
            _running.remove(module)
        for hook in _hooks.pop(module.__name__, ()):
            hook(module)


def after_body(module, hook):
    """Call `hook` with a module as soon as its body has run."""
    with _lock:
        if type(module) is _Deferred:
            _hooks.setdefault(module.__name__, []).append(hook)
            return
    hook(module)


class deferring:
    """Within it, a child defers the modules above, unless other threads could see how."""

    def __enter__(self):
        is_child = sys.argv[1:2] == ["--multiprocessing-fork"]
        if is_child and len(sys._current_frames()) == 1:
            sys.meta_path.insert(0, self)

    def __exit__(self, *_):
        if self not in sys.meta_path:
            return
        sys.meta_path.remove(self)
        while _lenders:
            module = _lenders[-1]
            _take_back(module)
            module.__class__ = _Deferred

    def find_spec(self, name, path=None, target=None):
        """Return the spec that others have for a module, but so that its body does not run yet."""
        if name not in _LENT:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        # Another loader is that of somebody who wants to be there when the body runs.
        if spec.loader is FrozenImporter or type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    """Leaves a module empty, but for what it lends."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        vars(module).update(
            _LENT[module.__name__], __getattr__=lambda name: _lend_all(module, name)
        )
        _lenders.append(module)


# The modules that are being deferred, while those that import them are imported.
_lenders = []


def _lend_all(module, name):
    """Run the body of a module at once, of which somebody needs more than is lent to him."""
    if name.startswith("__"):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    _take_back(module)
    module.__spec__.loader.exec_module(module)
    return getattr(module, name)


def _take_back(module):
    _lenders.remove(module)
    for name in (*_LENT[module.__name__], "__getattr__"):
        delattr(module, name)
