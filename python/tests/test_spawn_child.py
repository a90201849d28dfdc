"""A child with a fresh interpreter imports little, and nobody can tell.

Most tests run one program with both packages and compare what their children say.
"""

import textwrap

import pytest

HEAD = """
import os, sys
import PACKAGE

def child():
BODY

if __name__ == "__main__":
    process = PACKAGE.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
HEAVY = ["multiprocessing.reduction", "multiprocessing.resource_tracker", "runpy", "signal"]
HEAVY += ["subprocess"]


def program(package, body):
    body = textwrap.indent(textwrap.dedent(body), "    ")
    return HEAD.replace("BODY", body).replace("PACKAGE", package)


@pytest.fixture
def both(python):
    """A function that gives a child of each package the same body, and returns what both say."""

    def run(body, **kwargs):
        ours = python(program("tenfold", body), **kwargs)
        assert ours == python(program("multiprocessing", body), **kwargs)
        return ours

    return run


def test_imports_little(python):
    """What has been imported when the program's own code begins."""
    body = "print([name for name in ('enum', 're', 'socket', 'typing') if name in sys.modules])"
    assert python(program("tenfold", body)) == "[]\n"
    # Run alone, no main module is imported.
    command = "import tenfold; p = tenfold.get_context('spawn').Process(target=print); p.start()"
    assert python("-c", command) == "\n"


@pytest.mark.parametrize("name", HEAVY)
def test_a_module_is_what_it_always_is(both, name):
    said = both(f"""
        import importlib, types
        module = sys.modules[{name!r}]
        assert isinstance(module, types.ModuleType) and module.__name__ == {name!r}
        assert importlib.import_module({name!r}) is module and module.__spec__.loader
        print(module.__file__, repr(module), sorted(vars(module)))
        assert type(module) is types.ModuleType
        assert module.__spec__.loader is module.__loader__
        print(type(module.__loader__), module.__spec__.origin, len(dir(module)), module.__doc__)
    """)
    assert name in said


def test_modules_are_those_that_others_hold(both):
    both("""
        import multiprocessing, multiprocessing.context, multiprocessing.process, signal
        import multiprocessing.reduction
        assert multiprocessing.process.signal is sys.modules["signal"]
        assert multiprocessing.context.reduction is sys.modules["multiprocessing.reduction"]
        assert multiprocessing.context.reduction is multiprocessing.reduction
        assert multiprocessing.reducer is multiprocessing.reduction
        from multiprocessing.reduction import ForkingPickler
        assert ForkingPickler is multiprocessing.reduction.ForkingPickler
        print(signal.SIGTERM, repr(signal.SIGTERM), signal.getsignal(signal.SIGTERM))
        print(sorted(multiprocessing.process._exitcode_to_name.items()))
        print(multiprocessing.util._args_from_interpreter_flags())
        print(hasattr(signal, "nothing"), hasattr(signal, "__nothing__"))
    """)


def test_a_name_that_is_set_or_deleted_first(both):
    both("""
        import signal, subprocess, multiprocessing.reduction
        subprocess.run = 5
        multiprocessing.reduction.extra = 6
        del signal.SIGTERM
        import runpy, importlib
        importlib.reload(runpy).extra = 7
        print(subprocess.run, multiprocessing.reduction.extra, hasattr(signal, "SIGTERM"))
        print(runpy.extra, len(vars(runpy)), len(vars(signal)))
    """)


def test_threads_that_look_at_once(both):
    said = both("""
        import threading
        module = sys.modules["multiprocessing.reduction"]
        barrier, seen = threading.Barrier(8), []
        def look():
            barrier.wait()
            seen.append(module.ForkingPickler)
        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(seen), len(set(seen)))
    """)
    assert said == "8 1\n"


def test_fork_while_a_thread_runs_a_body(python):
    """The fork has no such thread, and no lock that it held."""
    body = """
        import threading
        def run():
            sys.modules["subprocess"].Popen
        def stop(event, arguments):
            # The thread is in the body of subprocess.
            if event == "import" and arguments[0] == "selectors" and not inside.is_set():
                inside.set()
                forked.wait()
        inside, forked = threading.Event(), threading.Event()
        sys.addaudithook(stop)
        threading.Thread(target=run).start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            os._exit(len(sys.modules["subprocess"].Popen.__name__))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        forked.set()
    """
    assert python(program("tenfold", body)) == "5\n"


def test_somebody_who_hooks_imports_sees_them(python, tmp_path):
    """Such as coverage tools, from sitecustomize; their loader runs when it always has."""
    (tmp_path / "sitecustomize.py").write_text("""
import importlib.abc, importlib.machinery, sys

class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        module.seen = True

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "subprocess" and sys.argv[1:2] == ["--multiprocessing-fork"]:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = Loader(name, spec.origin)
            return spec

sys.meta_path.insert(0, Finder())
""")
    body = "print(vars(sys.modules['subprocess'])['seen'])"
    command = program("tenfold", body)
    (tmp_path / "program.py").write_text(command)
    out = python("-c", f"""
import os, subprocess, sys
path = {str(tmp_path)!r} + os.pathsep + os.environ.get("PYTHONPATH", "")
subprocess.run([sys.executable, {str(tmp_path / "program.py")!r}],
    env={{**os.environ, "PYTHONPATH": path}}, check=True)
""")
    assert out == "True\n"


def test_more_is_needed_than_is_lent(python):
    """As by the modules of a later Python."""
    out = python(
        "-c",
        """
import sys, types
sys.argv.insert(1, "--multiprocessing-fork")
import tenfold
from tenfold._deferred import deferring
sys.modules.pop("signal")
with deferring():
    import signal
    number = signal.SIGTERM
    assert type(number) is int and not hasattr(signal, "__path__")
    from signal import Signals
    import subprocess
    assert type(signal) is types.ModuleType and type(signal.SIGTERM) is Signals
print(sys.modules["signal"] is signal, number, "__getattr__" in vars(signal))
print(type(subprocess) is types.ModuleType, subprocess.PIPE)
""",
    )
    assert out == "True 15 False\nFalse -1\n"


def test_the_tracker_of_shared_memory_is_the_parents(both):
    said = both("""
        from multiprocessing import resource_tracker, shared_memory
        memory = shared_memory.SharedMemory(create=True, size=100)
        memory.close()
        memory.unlink()
        tracker = resource_tracker._resource_tracker
        print(tracker._fd is not None, tracker._pid)
    """)
    assert said == "True None\n"


def test_the_garbage_collector(both):
    said = both("""
        import gc, weakref
        class Knot: pass
        knot = Knot()
        knot.itself = knot
        gone = weakref.ref(knot)
        del knot
        gc.collect()
        print(gc.isenabled(), gc.get_threshold(), gone())
    """)
    assert said.startswith("True")


def test_the_end_of_a_child(both):
    """Whatever an interpreter does at its end."""
    said = both("""
        import atexit, threading, time, weakref
        class Noisy:
            def __init__(self, name): self.name, self.itself = name, self
            def __del__(self): os.write(1, self.name)
        global file, noisy, finalizer
        noisy = Noisy(b"a global\\n")
        finalizer = weakref.finalize(noisy, lambda: os.write(1, b"finalized\\n"))
        file = open(1, "w", closefd=False)
        file.write("not flushed\\n")
        atexit.register(os.write, 1, b"at exit\\n")
        def late():
            time.sleep(0.1)
            os.write(1, b"a thread\\n")
        threading.Thread(target=late).start()
    """)
    assert sorted(said.splitlines()) == [
        "a global",
        "a thread",
        "at exit",
        "finalized",
        "not flushed",
    ]


def test_the_main_module(both):
    said = both("""
        main = sys.modules["__main__"]
        print(main.__name__, main is sys.modules["__mp_main__"], os.path.basename(main.__file__))
        print(main.__spec__, main.__loader__, main.__package__, main.__cached__, len(vars(main)))
        print(child.__module__, child.__code__.co_filename == main.__file__, sys.argv[1:])
    """)
    assert said.startswith("__mp_main__ True")


@pytest.mark.parametrize("package", ["tenfold", "multiprocessing"])
@pytest.mark.parametrize("kind", ["folder", "archive", "compiled"])
def test_a_main_module_of_another_kind(python, tmp_path, package, kind):
    import py_compile
    import zipfile

    source = tmp_path / "source.py"
    source.write_text(program(package, "print(sys.modules['__main__'].__name__)"))
    if kind == "compiled":
        path, expected = tmp_path / "main.pyc", "__mp_main__\n"
        py_compile.compile(str(source), str(path))
    elif kind == "folder":
        path, expected = tmp_path / "folder", "__main__\n"
        path.mkdir()
        (path / "__main__.py").write_text("import source; source.start()")
        (path / "source.py").write_text(startable(source))
    else:
        path, expected = tmp_path / "main.zip", "__main__\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__main__.py", "import source; source.start()")
            archive.writestr("source.py", startable(source))
    assert python("-B", path) == expected


def startable(source):
    return source.read_text().replace('if __name__ == "__main__":', "def start():")
