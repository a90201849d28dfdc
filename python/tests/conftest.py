"""What all tests share: fresh interpreters that run small programs, under a watchdog."""

import os
import signal
from pathlib import Path

import pytest
from companions import LONG, Child, finish

import tenfold

# A shell that runs a job in the background has it ignore Ctrl-C, and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

METHODS = ["fork", "spawn", "forkserver"]
# Seconds after which a program is taken to hang.
LIMIT = 60


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


@pytest.fixture
def ctx(method):
    """The context of each start method in turn."""
    return tenfold.get_context(method)


@pytest.fixture
def local():
    """A context for tests of one process."""
    return tenfold.get_context("fork")


@pytest.fixture
def child(ctx):
    """A function that starts a companion, a process beside the test; it ends with the test."""
    children = []

    def start(target, *args, name=None):
        children.append(Child(ctx, target, *args, name=name))
        return children[-1]

    yield start
    for one in children:
        if one.process.is_alive():
            one.process.kill()
        one.process.join(LONG)


@pytest.fixture
def python(tmp_path):
    """A function that runs a Python program in an interpreter of its own and returns its output.

    `python(source)` runs a file with that source; `python("-m", "module")` runs exactly that. The
    program must exit with `status` and write nothing to stderr, unless `stderr` is a pattern's text
    that must be in it; with `tracebacks`, there are so many at most.
    """

    def run(*command, status=0, stderr=None, tracebacks=None, cwd=tmp_path, limit=LIMIT):
        if len(command) == 1:
            program = tmp_path / "program.py"
            program.write_text(command[0])
            command = (program,)
        folder = Path(tenfold.__file__).parent.parent
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        process, out, err = finish(command, limit, cwd=cwd, env=environment)
        if stderr is None:
            assert err == ""
        else:
            assert stderr in err
        if tracebacks is not None:
            assert err.count("Traceback") <= tracebacks, err
        assert process.returncode == status, err
        return out

    return run


@pytest.fixture
def make_pool(method):
    """A function that makes pools, in each start method; they are terminated at the end."""
    pools = []

    def make(processes=2, **kwargs):
        pool = tenfold.get_context(method).Pool(processes, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.terminate()
        pool.join()


@pytest.fixture
def fork_pool():
    with tenfold.get_context("fork").Pool(2) as pool:
        yield pool
    pool.join()
