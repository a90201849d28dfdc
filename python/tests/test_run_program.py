"""`python -m tenfold` runs programs that nobody edited."""

import zipfile

import pytest

PROGRAM = """
import multiprocessing
import sys

class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    assert multiprocessing.__name__ == "tenfold"
    return Point(2 * point.x)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with multiprocessing.Pool(2) as pool:
        print([point.x for point in pool.map(double, [Point(1), Point(2)])])
    print(sys.argv[1:], __name__, sys.modules["__main__"].Point is Point)
"""


def expected(method):
    return f"[2, 4]\n['{method}', '-x', '--', 'y z'] __main__ True\n"


def test_a_script(python, tmp_path, method):
    (tmp_path / "script.py").write_text(PROGRAM)
    out = python("-m", "tenfold", "script.py", method, "-x", "--", "y z")
    assert out == expected(method)


def test_a_script_elsewhere(python, tmp_path, method):
    """It finds its neighbours, although it was started from another folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "neighbour.py").write_text(PROGRAM)
    (tmp_path / "link.py").symlink_to("folder/script.py")
    (tmp_path / "folder" / "script.py").write_text("""
import multiprocessing
import sys
from neighbour import Point, double

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map(double, [Point(1)])[0].x, sys.argv[0])
""")
    for name in "folder/script.py", "link.py":
        assert python("-m", "tenfold", name, method) == f"2 {name}\n"


def test_a_module(python, tmp_path, method):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(PROGRAM)
    out = python("-m", "tenfold", "-m", "package.module", method, "-x", "--", "y z")
    assert out == expected(method)


def test_a_package(python, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    out = python("-m", "tenfold", "-m", "package", "fork", "-x", "--", "y z")
    assert out == expected("fork")


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_folder_or_archive(python, tmp_path, kind):
    if kind == "folder":
        (tmp_path / "program").mkdir()
        (tmp_path / "program" / "__main__.py").write_text(PROGRAM)
    else:
        with zipfile.ZipFile(tmp_path / "program", "w") as archive:
            archive.writestr("__main__.py", PROGRAM)
    out = python("-m", "tenfold", "program", "fork", "-x", "--", "y z")
    assert out == expected("fork")


SELF_PORTRAIT = """
import __main__, sys
names = {name: repr(value) for name, value in vars(__main__).items() if name not in ("__loader__",)}
names["__builtins__"] = type(__builtins__).__name__
names.pop("__spec__")
print(sorted(names.items()), sys.path[0], sys.argv, type(__loader__).__name__)
assert sys.modules["__main__"].__dict__ is globals()
"""


def test_main_is_as_python_makes_it(python, tmp_path):
    (tmp_path / "script.py").write_text(SELF_PORTRAIT)
    plain = python("script.py", "a")
    assert python("-m", "tenfold", "script.py", "a") == plain


def test_main_of_a_module_is_as_python_makes_it(python, tmp_path):
    (tmp_path / "module.py").write_text(SELF_PORTRAIT)
    plain = python("-m", "module", "a")
    assert python("-m", "tenfold", "-m", "module", "a") == plain


def test_exit_status(python, tmp_path):
    (tmp_path / "script.py").write_text("import sys; sys.exit(7)")
    python("-m", "tenfold", "script.py", status=7)


def test_an_exception_is_reported_once(python, tmp_path):
    (tmp_path / "script.py").write_text("raise RuntimeError('in the script')")
    python("-m", "tenfold", "script.py", status=1, stderr="RuntimeError: in the script")


def test_threads_and_exit_handlers_see_the_scripts_main(python, tmp_path):
    """They run when the last line of the script has run."""
    (tmp_path / "script.py").write_text("""
import atexit, pickle, threading

def work():
    pass

def see(where):
    assert pickle.loads(pickle.dumps(work)) is work
    print(where)

def later():
    threading.main_thread().join()
    see("thread")

threading.Thread(target=later).start()
atexit.register(see, "handler")
""")
    assert python("-m", "tenfold", "script.py") == "thread\nhandler\n"


@pytest.mark.parametrize(
    "arguments, why",
    [
        ([], "which program?"),
        (["-m"], "needs the name of a module"),
        (["--fast", "script.py"], "no such option: --fast"),
        (["nowhere.py"], "can't open file"),
    ],
)
def test_refusals(python, arguments, why):
    python("-m", "tenfold", *arguments, status=2, stderr=why)


def test_help(python):
    assert python("-m", "tenfold", "--help").startswith("usage: python -m tenfold PROGRAM")
