"""What programs do with queues beyond their documentation: subclasses, executors, joblib."""

import pytest
from test_queues import echo

import tenfold
import tenfold.queues

# Subclasses that programs make


class Counting(tenfold.queues.Queue):
    """The recipe for platforms without qsize."""

    def __init__(self, maxsize=0, *, ctx):
        super().__init__(maxsize, ctx=ctx)
        self.count = ctx.Value("i", 0)

    def __getstate__(self):
        return super().__getstate__() + (self.count,)

    def __setstate__(self, state):
        super().__setstate__(state[:-1])
        self.count = state[-1]

    def put(self, *args, **kwargs):
        super().put(*args, **kwargs)
        with self.count.get_lock():
            self.count.value += 1


def fill(q):
    q.put("put")
    q.put_nowait("short")


def test_a_subclass_that_counts(method):
    context = tenfold.get_context(method)
    q = Counting(ctx=context)
    child = context.Process(target=fill, args=(q,))
    child.start()
    assert q.get() == "put" and q.get() == "short"
    child.join()
    assert q.count.value == 2


class Fed(tenfold.queues.Queue):
    """As in joblib's loky: a feeder thread of its own, started by overridden code."""

    def _start_thread(self):
        self.started = True
        super()._start_thread()


def test_a_subclass_with_a_feeder_thread_of_its_own_is_the_standard_librarys(method):
    context = tenfold.get_context(method)
    there, back = Fed(5, ctx=context), Fed(ctx=context)
    child = context.Process(target=echo, args=(there, back))
    child.start()
    there.put([1])
    there.put_nowait("stop")
    assert back.get(timeout=30) == [1]
    assert there.started and there._thread is not None
    child.join()
    for q in (there, back):
        q.close()
        q.join_thread()


# concurrent.futures

EXECUTOR = """
import tenfold
tenfold.install()
import os, signal, multiprocessing, threading, time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

def square(x):
    return x * x

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def wait_and_die(x):
    time.sleep(0.1)
    die()

def one(executor):
    return executor.submit(die)

def many(executor):
    return [executor.submit(wait_and_die, b"x" * 300_000) for _ in range(8)][-1]

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    assert context.Queue.__func__.__module__ == "tenfold.context"
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(square, range(500))) == [x * x for x in range(500)]
        assert list(executor.map(square, range(500), chunksize=50)) == [x * x for x in range(500)]
        assert len(executor.submit(bytes, 5_000_000).result()) == 5_000_000
        try:
            executor.submit(square, threading.Lock()).result()
        except TypeError as error:
            assert "pickle" in str(error)
        assert executor.submit(square, 3).result() == 9
    for doomed in (one, many):
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            executor.submit(square, 1).result()
            try:
                doomed(executor).result(60)
            except BrokenProcessPool:
                print("broken")
"""


def test_an_executor_works_and_does_not_hang_when_a_worker_is_killed(method, python):
    assert python(EXECUTOR.format(method=method)) == "broken\nbroken\n"


# As loky's queues do it: everything about the pipe and its feeder is their own.
LOKY = """
import tenfold
tenfold.install()
import joblib

def power(x, n):
    return x ** n

if __name__ == "__main__":
    work = (joblib.delayed(power)(x, 2) for x in range(200))
    print(sum(joblib.Parallel(n_jobs=2)(work)))
    joblib.externals.loky.get_reusable_executor().shutdown()
"""


def test_joblib_works_with_its_own_queues(python):
    pytest.importorskip("joblib")
    assert python(LOKY) == f"{sum(x * x for x in range(200))}\n"
