"""Runs a program that nobody edited on tenfold: `python -m tenfold program.py arguments …`.

The program is `__main__`, as if Python had started it, so that children started by `spawn` and
`forkserver` find its functions.
"""

import builtins
import importlib.machinery
import importlib.util
import os
import pkgutil
import runpy
import sys
from types import CodeType

from ._alias import install

__all__ = ["main"]

_USAGE = """\
usage: python -m tenfold PROGRAM [ARGUMENT ...]
       python -m tenfold -m MODULE [ARGUMENT ...]

Run a Python program, or a module as a program, with tenfold in the place of multiprocessing.
PROGRAM is a file, or a folder or archive with a __main__.py.
"""


def main() -> None:
    """Run the program that the command line names."""
    arguments = sys.argv[1:]
    if not arguments:
        raise _refusal("which program?")
    first, *rest = arguments
    if first in ("-h", "--help"):
        print(_USAGE, end="")
    elif first == "-m":
        if not rest:
            raise _refusal("-m needs the name of a module")
        _run_module(rest)
    elif first.startswith("-"):
        raise _refusal(f"no such option: {first}")
    else:
        _run_program(arguments)


def _refusal(why: str) -> SystemExit:
    sys.stderr.write(f"{_USAGE}\ntenfold: {why}\n")
    return SystemExit(2)


def _run_module(arguments: list[str]) -> None:
    install()
    sys.argv[:] = arguments
    _fresh_main()
    # What Python itself calls for -m: it runs the module in the namespace of __main__.
    runpy._run_module_as_main(arguments[0], alter_argv=True)


def _run_program(arguments: list[str]) -> None:
    install()
    sys.argv[:] = arguments
    path = arguments[0]
    if _is_importable(path):
        _put_first_on_path(path)
        _fresh_main()
        runpy._run_module_as_main("__main__", alter_argv=False)
    else:
        _run_file(os.path.abspath(path))


def _fresh_main() -> dict[str, object]:
    """Return the namespace of __main__, as empty as that of an interpreter that just started."""
    namespace = sys.modules["__main__"].__dict__
    namespace.clear()
    namespace.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=None,
        __spec__=None,
        __annotations__={},
        __builtins__=builtins,
    )
    return namespace


def _is_importable(path: str) -> bool:
    """Whether `path` is a folder or an archive, that is, an entry for sys.path."""
    return pkgutil.get_importer(path) is not None


def _put_first_on_path(entry: str) -> None:
    # `python -m` put the working directory there, unless it was told not to.
    if sys.flags.safe_path:
        sys.path.insert(0, entry)
    else:
        sys.path[0] = entry


def _run_file(path: str) -> None:
    try:
        code = _read_code(path)
    except OSError as error:
        sys.stderr.write(f"tenfold: can't open file {path!r}: {error.strerror}\n")
        sys.exit(2)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    namespace = _fresh_main()
    namespace.update(
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
        __file__=path,
        __cached__=None,
    )
    exec(code, namespace)


def _read_code(path: str) -> CodeType:
    with open(path, "rb") as file:
        if file.read(len(importlib.util.MAGIC_NUMBER)) == importlib.util.MAGIC_NUMBER:
            file.seek(0)
            return pkgutil.read_code(file)
        file.seek(0)
        return compile(file.read(), path, "exec", dont_inherit=True)
