"""Makes `import multiprocessing`, and every submodule of it, mean tenfold.

The names in `sys.modules` are set to tenfold's very objects (else `import multiprocessing.queues`
would load tenfold's file a second time). What is loaded already is replaced at once; the rest when
first asked for.
"""

import importlib
import importlib.machinery
import sys
import types

from . import _original

__all__ = ["install", "installed"]

_ALIAS = "multiprocessing"


def install() -> None:
    """Make `multiprocessing` mean tenfold in this process and all that it starts.

    Call it before other modules import `multiprocessing`: one that has it already keeps the
    standard library's. Calling it again does nothing.
    """
    if installed():
        return
    loaded = [name for name in sys.modules if name.startswith(_ALIAS + ".")]
    replaced = {name: _ours(name) for name in loaded}
    _original.keep_originals()
    sys.meta_path.insert(0, _finder)
    sys.modules.update(replaced)
    sys.modules[_ALIAS] = sys.modules[__package__]
    _rebase_executors()


def installed() -> bool:
    """Whether `multiprocessing` means tenfold in this process."""
    return _finder in sys.meta_path


def _rebase_executors() -> None:
    """Have ProcessPoolExecutor use our queues, if it has been imported already.

    It is the one part of the standard library with a subclass of a class of multiprocessing's; a
    queue of that class would arrive as another one in a child, which imports it after install().
    """
    module = sys.modules.get("concurrent.futures.process")
    if module is None:
        return
    before = dict(vars(module))
    importlib.reload(module)
    for name in before.keys() - {"_SafeQueue", "Queue", "mp", _ALIAS}:
        # What others may have imported, such as its exceptions, stays the same object.
        setattr(module, name, before[name])


def _ours(alias: str) -> types.ModuleType:
    """What a name that begins with multiprocessing is to mean."""
    name = __package__ + alias.removeprefix(_ALIAS)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    # Perhaps a module that a later Python has and we do not know.
    return _original.original(alias.removeprefix(_ALIAS + "."))


class _Loader:
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        # importlib hands out what is in sys.modules once this returns.
        alias = module.__spec__.name
        sys.modules[alias] = _ours(alias)


class _Finder:
    def find_spec(
        self, fullname: str, path: list[str] | None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _ALIAS or fullname.startswith(_ALIAS + "."):
            return importlib.machinery.ModuleSpec(fullname, _Loader())
        return None


_finder = _Finder()
