"""The standard library's own multiprocessing modules, also when `multiprocessing` means tenfold.

tenfold subclasses and borrows them. Before an alias is made they are simply imported. Afterwards
the names `multiprocessing.*` belong to tenfold, so an original that nobody has needed yet is loaded
under this module's name, where its relative imports meet other originals and not tenfold's modules:

    multiprocessing.pool      ──▶ tenfold.pool, by the alias
    tenfold._original.pool    ──▶ the standard library's pool.py; its __name__ says multiprocessing

Once its body has run, such a module cannot be told from one that was loaded before the alias.
Loading late keeps the start of a child short: it imports what it uses and no more. For the same
reason nothing here imports `typing` or `importlib.abc`, which cost more than all the rest.
"""

import functools
import importlib
import importlib.machinery
import sys
import types

from . import _deferred

with _deferred.deferring():
    import multiprocessing

__all__ = ["adopt", "adopt_seeing", "keep_originals", "mirror", "original", "overlay"]

_package = multiprocessing
# Relative imports of an original look here; the finder below answers.
__path__ = list(_package.__path__)


def __getattr__(name: str) -> object:
    # `from . import get_context` in an original.
    return getattr(_package, name)


def original(name: str) -> types.ModuleType:
    """The standard library's module `multiprocessing.<name>` itself."""
    family = __name__ if _finder in sys.meta_path else _package.__name__
    return importlib.import_module(f"{family}.{name}")


def mirror(namespace: dict[str, object], name: str) -> types.ModuleType:
    """Give a module of ours every name of its original, private ones too; returns the original.

    Names that ours has already, such as those of its imports, are kept.
    """
    module = original(name)
    for key, value in vars(module).items():
        if not (key.startswith("__") and key.endswith("__")):
            namespace.setdefault(key, value)
    namespace["__all__"] = list(module.__all__)
    return module


def adopt(function: types.FunctionType, namespace: dict[str, object]) -> types.FunctionType:
    """The same function, but it looks its global names up in `namespace`.

    This is how the standard library's own code, of whatever version, comes to use our classes.
    """
    adopted = types.FunctionType(
        function.__code__,
        namespace,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(adopted, function)
    del adopted.__wrapped__
    adopted.__kwdefaults__ = function.__kwdefaults__
    adopted.__module__ = namespace["__name__"]
    return adopted


def adopt_seeing(
    function: types.FunctionType, module: types.ModuleType, name: str, **others: object
) -> types.FunctionType:
    """The same function of an original `module`, for ours called `name`: it sees `others` under
    their names, and else what it has always seen."""
    return adopt(function, {**vars(module), "__name__": name, **others})


def overlay(module: types.ModuleType, **names: object) -> types.ModuleType:
    """What a module has, but for some names: to be seen in its place.

    It holds no copy of the others: to let go of a copy costs a process that has just forked a page
    for each object in it. It is a module itself, since names are found in those at the least cost.
    """
    seen = types.ModuleType(module.__name__)
    vars(seen).update(names, __getattr__=lambda name: getattr(module, name))
    return seen


def keep_originals() -> None:
    """Make `original` independent of what `multiprocessing` means; before the alias is made."""
    if _finder in sys.meta_path:
        return
    prefix = _package.__name__ + "."
    for name, module in list(sys.modules.items()):
        if name.startswith(prefix):
            sys.modules[f"{__name__}.{name.removeprefix(prefix)}"] = module
    sys.meta_path.insert(0, _finder)


class _Loader:
    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        spec = self._spec
        module.__name__ = spec.name
        module.__file__ = spec.origin
        code = spec.loader.get_code(spec.name)
        exec(code, module.__dict__)
        # From here on its late imports go through the alias, as those of all other originals do.
        module.__spec__ = spec
        module.__loader__ = spec.loader
        module.__package__ = spec.parent


class _Finder:
    def find_spec(
        self, fullname: str, path: list[str] | None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(__name__ + "."):
            return None
        real_name = _package.__name__ + fullname.removeprefix(__name__)
        real = importlib.machinery.PathFinder.find_spec(real_name, path)
        if real is None or real.loader is None:
            raise ModuleNotFoundError(f"No module named {real_name!r}", name=real_name)
        spec = importlib.machinery.ModuleSpec(fullname, _Loader(real), origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec


_finder = _Finder()
