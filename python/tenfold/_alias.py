"""Makes `import multiprocessing`, and every submodule of it, mean tenfold.

The names in `sys.modules` are set to tenfold's very objects (else `import multiprocessing.queues`
would load tenfold's file a second time). What is loaded already is replaced at once; the rest when
first asked for.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

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
    replaced = {name: _ours(name) for name in loaded if _is_ours(name)}
    _original.keep_originals()
    sys.meta_path.insert(0, _finder)
    sys.modules.update(replaced)
    sys.modules[_ALIAS] = sys.modules[__package__]


def installed() -> bool:
    """Whether `multiprocessing` means tenfold in this process."""
    return _finder in sys.meta_path


def _our_name(alias: str) -> str:
    return __package__ + alias.removeprefix(_ALIAS)


def _is_ours(alias: str) -> bool:
    name = _our_name(alias)
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _ours(alias: str) -> types.ModuleType:
    return importlib.import_module(_our_name(alias))


class _Loader(importlib.abc.Loader):
    def exec_module(self, module: types.ModuleType) -> None:
        # importlib hands out what is in sys.modules once this returns.
        alias = module.__spec__.name
        if _is_ours(alias):
            sys.modules[alias] = _ours(alias)
        else:
            sys.modules[alias] = _original.original(alias.removeprefix(_ALIAS + "."))


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _ALIAS or fullname.startswith(_ALIAS + "."):
            return importlib.machinery.ModuleSpec(fullname, _Loader())
        return None


_finder = _Finder()
