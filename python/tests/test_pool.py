"""Pools: results, faults by real kills, what is new, and what must not be left behind."""

import asyncio
import contextlib
import ctypes
import functools
import gc
import operator
import os
import pickle
import resource
import signal
import sys
import threading
import time
import warnings

import pytest

import tenfold
from tenfold import _native
from tenfold.pool import (
    BrokenPool,
    IMapIterator,
    MaybeEncodingError,
    Pool,
    PoolTerminated,
    RemoteTraceback,
    TaskCancelled,
    TaskTimeout,
    ThreadPool,
    WorkerDied,
)


@pytest.fixture
def make(method):
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


def eventually(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def kill_all(workers):
    for worker in list(workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
    return [worker.pid for worker in workers]


# What tasks do.


def same(x):
    return x


def square(x):
    return x * x


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def raise_it(exception):
    raise exception


def pairs(a, b=0, *, c=0):
    return (a, b, c)


def die_at(x, at=3, how="kill"):
    if x == at:
        HOW[how]()
    return x * x


def overflow_the_stack():
    # Deep C recursion, past Python's own limit.
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**7):
        nested = [nested]
    nested == [nested]  # noqa: B015
    os._exit(99)


HOW = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "_exit": lambda: os._exit(3),
    "exit": lambda: sys.exit(4),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
}
ENDS = {"kill": -9, "term": -15, "_exit": 3, "exit": 4, "abort": -6, "segfault": -11}


def once(path):
    """Dies the first time."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "at last"


VALUES = [
    *(
        0,
        1,
        -1,
        2**31 - 1,
        2**31,
        -(2**31) - 1,
        2**47 - 1,
        2**47,
        -(2**47),
        2**63 - 1,
        2**64,
        -(10**30),
    ),
    *(0.0, -0.5, float("inf"), None, True, False, "", "seven77", "ünïcödé", "x" * 100_000),
    *(b"", b"1234567", b"x" * 100_000, (), (1, 2.5, "a", None), [1, [2]], {"a": {1}}, 1j),
]


class TestResults:
    def test_values_survive_the_journey(self, make):
        pool = make()
        results = pool.map(same, VALUES)
        assert results == VALUES
        assert [type(a) for a in results] == [type(b) for b in VALUES]
        assert [pool.apply(same, (value,)) for value in VALUES] == VALUES
        assert list(pool.imap(same, VALUES)) == VALUES

    def test_every_way_to_call(self, make):
        pool = make()
        numbers = list(range(300))
        squares = [n * n for n in numbers]
        assert pool.map(square, numbers) == squares
        assert pool.map(square, iter(numbers), 7) == squares
        assert pool.map_async(square, numbers).get() == squares
        assert list(pool.imap(square, numbers)) == squares
        assert list(pool.imap(square, iter(numbers), 7)) == squares
        assert sorted(pool.imap_unordered(square, iter(numbers))) == squares
        assert sorted(pool.imap_unordered(square, numbers, 7)) == squares
        assert pool.starmap(pairs, [(1,), [2, 3], "ab"]) == [(1, 0, 0), (2, 3, 0), ("a", "b", 0)]
        assert pool.starmap_async(operator.add, zip(numbers, numbers)).get() == [
            2 * n for n in numbers
        ]
        assert pool.apply(pairs, (1,), {"c": 3}) == (1, 0, 3)
        assert pool.apply(pairs, [1, 2]) == (1, 2, 0)
        assert pool.apply_async(pairs, (1,), {"c": 3}).get(20) == (1, 0, 3)

    def test_many_items(self, fork_pool):
        count = 200_000
        assert fork_pool.map(same, range(count)) == list(range(count))
        assert list(fork_pool.imap(same, range(count))) == list(range(count))
        assert (
            sum(fork_pool.imap_unordered(same, (i for i in range(count))))
            == count * (count - 1) // 2
        )
        results = [fork_pool.apply_async(same, (i,)) for i in range(20_000)]
        assert [result.get() for result in results] == list(range(20_000))
        assert (
            fork_pool.starmap(operator.add, ((f"{i}", "b") for i in range(5000)))[4321] == "4321b"
        )

    def test_large_things(self, make):
        numpy = pytest.importorskip("numpy")
        pool = make()
        arrays = [numpy.full(200_000, n, dtype=float) for n in range(24)]
        back = pool.map(same, arrays)
        assert all((a == b).all() for a, b in zip(arrays, back))
        back[3][:] = 7  # writable, and nobody else's
        assert (pool.apply(same, (arrays[3],)) == 3).all()
        assert pool.apply(len, (b"x" * 10_000_000,)) == 10_000_000
        assert pool.apply(pairs, (arrays[2],), {"c": arrays[1]})[2].sum() == 200_000
        assert len(pool.apply(bytes, (10_000_000,))) == 10_000_000

    def test_objects_of_tenfold_travel(self, make):
        pool = make()
        queue = tenfold.Queue()
        assert pool.apply(put, (queue, 5)) is None
        assert queue.get(timeout=20) == 5
        pool.map(bound_put(queue), range(5))
        assert sorted(queue.get(timeout=20) for _ in range(5)) == [0, 1, 2, 3, 4]
        assert pool.apply(same, (queue,)).empty()
        pool.apply_async(same, (queue,))  # whose result nobody takes
        assert list(pool.imap(queue_size, [queue] * 3)) == [0, 0, 0]

    def test_uneven_tasks_are_shared_evenly(self, fork_pool):
        # One long task must not hold up those that would stand behind it in a fixed chunk.
        durations = [0.5, *[0.0] * 400]
        started = time.monotonic()
        pids = fork_pool.map(pid_after, durations)
        assert time.monotonic() - started < 10
        assert pids.count(pids[0]) < 60

    def test_functions_by_value(self, make):
        pytest.importorskip("cloudpickle")
        pool = make()
        offset = 10
        assert pool.map(lambda x: x + offset, range(5)) == [10, 11, 12, 13, 14]
        offset = 20
        assert pool.apply(lambda x: x + offset, (1,)) == 21

    def test_ready_successful_wait_and_timeouts(self, make):
        pool = make()
        slow = pool.apply_async(pid_after, (0.3,))
        with pytest.raises(ValueError, match="not ready"):
            slow.successful()
        assert not slow.ready()
        slow.wait(0)
        with pytest.raises(tenfold.TimeoutError):
            slow.get(0.01)
        with pytest.raises(tenfold.TimeoutError):
            pool.imap(pid_after, [0.3]).next(timeout=0.01)
        slow.wait()
        assert slow.ready() and slow.successful()
        assert slow.get() == slow.get()
        failed = pool.apply_async(raise_it, (KeyError("no"),))
        failed.wait()
        assert failed.ready() and not failed.successful()

    def test_from_many_threads(self, fork_pool):
        errors = []

        def use(seed):
            try:
                for n in range(30):
                    assert fork_pool.apply(square, (seed + n,)) == (seed + n) ** 2
                    assert fork_pool.map(square, range(seed, seed + 50)) == [
                        i * i for i in range(seed, seed + 50)
                    ]
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors


def put(queue, value):
    queue.put(value)


def queue_size(queue):
    return queue.qsize()


def bound_put(queue):
    return functools.partial(put, queue)


class TestDeaths:
    @pytest.mark.parametrize("how", sorted(ENDS))
    def test_one_task_is_lost_and_the_text_tells_how(self, make, how):
        pool = make()
        tasks = [(n, 3, how) for n in range(8)]
        with pytest.raises(WorkerDied) as caught:
            pool.starmap(die_at, tasks, 1)
        died = caught.value
        assert (died.index, died.exitcode) == (3, ENDS[how])
        assert died.signal == (-ENDS[how] if ENDS[how] < 0 else None)
        assert isinstance(died, tenfold.ProcessError) and died.pid > 0
        name = signal.Signals(died.signal).name if died.signal else f"code {died.exitcode}"
        assert name in str(died) and "retries" in str(died)
        assert pickle.loads(pickle.dumps(died)).pid == died.pid
        # All others have finished, and the pool goes on.
        results = pool.imap(die_at_three, range(8))
        found = []
        while len(found) < 8:
            try:
                found.append(next(results))
            except WorkerDied as error:
                found.append(error.index)
        assert found == [0, 1, 4, 3, 16, 25, 36, 49]
        assert pool.map(square, range(10)) == [n * n for n in range(10)]

    def test_every_way_to_call(self, make):
        pool = make()
        errors = []
        result = pool.apply_async(die_at_three, (3,), error_callback=errors.append)
        with pytest.raises(WorkerDied):
            result.get(20)
        assert [type(error) for error in errors] == [WorkerDied]
        with pytest.raises(WorkerDied):
            pool.starmap_async(die_at, [(1,), (3,), (4,)], error_callback=errors.append).get(20)
        assert errors[1].index == 1
        results = pool.imap_unordered(die_at_three, range(6))
        values, deaths = [], 0
        while True:
            try:
                values.append(next(results))
            except StopIteration:
                break
            except WorkerDied:
                deaths += 1
        assert (sorted(values), deaths) == ([0, 1, 4, 16, 25], 1)

    def test_retries(self, make, tmp_path):
        pool = make()
        paths = [str(tmp_path / f"{n}") for n in range(5)]
        assert pool.map(once, paths, retries=1) == ["at last"] * 5
        assert pool.apply(once, (str(tmp_path / "a"),), retries=2) == "at last"
        assert list(pool.imap(once, [str(tmp_path / "b")], retries=1)) == ["at last"]
        with pytest.raises(WorkerDied):
            pool.apply(die_at_three, (3,), retries=2)

    def test_idle_workers_are_killed(self, make):
        pool = make(3)
        pool.map(square, range(9))
        for _ in range(3):
            kill_all(pool._pool)
            assert pool.map(square, range(9)) == [n * n for n in range(9)]
        eventually(lambda: len(pool._pool) == 3 and all(w.is_alive() for w in pool._pool))

    def test_kills_at_random_lose_no_other_task(self, fork_pool):
        count, stop, kills = 3000, threading.Event(), []

        def kill():
            while not stop.wait(0.03):
                kills.extend(kill_all(fork_pool._pool[:1]))

        killer = threading.Thread(target=kill)
        killer.start()
        done, lost = 0, 0
        results = fork_pool.imap_unordered(pid_after, [0.0005] * count)
        while True:
            try:
                next(results)
                done += 1
            except StopIteration:
                break
            except WorkerDied:
                lost += 1
        stop.set()
        killer.join()
        assert done + lost == count
        assert 0 < lost <= len(kills)

    def test_a_worker_that_forks_and_dies(self, fork_pool):
        # The task's child holds what the worker had open; the death must be noticed all the same.
        with pytest.raises(WorkerDied):
            fork_pool.apply(fork_and_die)
        assert fork_pool.apply(square, (3,)) == 9


def die_at_three(x):
    return die_at(x)


def fork_and_die():
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    os._exit(1)


class TestTimeLimits:
    def test_timeout_kills_that_task(self, make):
        pool = make()
        with pytest.raises(TaskTimeout) as caught:
            pool.map(pid_after, [0, 60, 0], timeout=0.3)
        assert caught.value.index == 1
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, tenfold.TimeoutError)
        with pytest.raises(TaskTimeout):
            pool.apply(pid_after, (60,), timeout=0.2)
        assert pool.apply(square, (3,), timeout=60) == 9
        results = pool.imap(pid_after, [0, 60, 0], timeout=0.3)
        assert next(results)
        with pytest.raises(TaskTimeout):
            next(results)
        assert next(results)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_nonsense(self, fork_pool, timeout):
        for call in (fork_pool.apply, fork_pool.map):
            with pytest.raises(ValueError, match="positive"):
                call(square, (3,), timeout=timeout)
        with pytest.raises(ValueError, match="positive"):
            fork_pool.imap(square, (3,), timeout=timeout)

    def test_cancel(self, make):
        pool = make(1)
        running = pool.apply_async(pid_after, (60,))
        waiting = pool.apply_async(square, (3,))
        eventually(lambda: pool._board.present_workers() == 1)
        time.sleep(0.1)
        assert waiting.cancel()
        assert running.cancel()
        for result in (running, waiting):
            with pytest.raises(TaskCancelled):
                result.get(20)
            assert not result.cancel()
        done = pool.apply_async(square, (3,))
        assert done.get(20) == 9
        assert not done.cancel()
        rest = pool.map_async(pid_after, [0.2, *[60] * 50], 1)
        time.sleep(0.05)
        assert rest.cancel()
        with pytest.raises(TaskCancelled):
            rest.get(20)


class NotPicklable:
    def __reduce__(self):
        raise RuntimeError("it cannot be pickled")


class NotUnpicklable:
    def __reduce__(self):
        return (raise_it, (RuntimeError("it cannot be unpickled"),))


class TwoArguments(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Unsendable(Exception):
    def __init__(self):
        super().__init__("unsendable")
        self.lock = threading.Lock()


def give(kind):
    return {"result": threading.Lock, "unpicklable": NotUnpicklable}[kind]()


def vanish():
    """Exists in the parent only: see below."""


class TestPickling:
    def test_arguments_that_cannot_be_pickled(self, make):
        pool = make()
        bad = NotPicklable()
        for call in (pool.apply, pool.map, pool.starmap):
            with pytest.raises(RuntimeError, match="cannot be pickled"):
                call(same, (bad,) if call == pool.apply else [(bad,)])
        errors = []
        result = pool.apply_async(same, (bad,), error_callback=errors.append)
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            result.get(20)
        assert len(errors) == 1
        results = pool.imap(same, [1, bad, 3])
        assert next(results) == 1
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            next(results)
        assert next(results) == 3
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_what_cannot_be_unpickled_is_its_task_s_error(self, make):
        pool = make()
        with pytest.raises(RuntimeError, match="cannot be unpickled"):
            pool.apply(same, (NotUnpicklable(),))
        with pytest.raises(RuntimeError, match="cannot be unpickled"):
            pool.apply(give, ("unpicklable",))
        with pytest.raises(MaybeEncodingError, match="lock"):
            pool.apply(give, ("result",))
        with pytest.raises(MaybeEncodingError, match="1 and 2"):
            pool.apply(raise_two)
        with pytest.raises(MaybeEncodingError, match="unsendable"):
            pool.apply(raise_unsendable)
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_a_function_that_the_worker_does_not_know(self, make):
        pool = make()
        pool.apply(forget_function)
        pool.apply(forget_function)
        if len({pool.apply(pid_after, (0.01,)) for _ in range(10)}) > 1:
            pool.map(forget_and_wait, [0.2] * 2, 1)
        with pytest.raises(AttributeError, match="vanish"):
            pool.apply(vanish)
        assert pool.apply(square, (3,)) == 9

    def test_remote_tracebacks(self, make):
        pool = make()
        with pytest.raises(KeyError) as caught:
            pool.apply(raise_it, (KeyError("here"),))
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in raise_it" in str(caught.value.__cause__)

    @pytest.mark.parametrize(
        "exception",
        [KeyboardInterrupt("k"), GeneratorExit("g"), BaseException("b"), RecursionError()],
    )
    def test_any_exception_is_the_task_s(self, make, exception):
        pool = make()
        with pytest.raises(type(exception)):
            pool.apply(raise_it, (exception,))
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_deep_and_large_exceptions(self, make):
        pool = make()
        with pytest.raises(RecursionError):
            pool.apply(recurse)
        with pytest.raises(ValueError, match="xxxx") as caught:
            pool.apply(raise_large, (20_000_000,))
        assert len(caught.value.args[0]) == 20_000_000
        with pytest.raises(ValueError, match="299"):
            pool.apply(raise_chain, (300,))
        with pytest.raises((RecursionError, MaybeEncodingError)):
            pool.apply(deep_list, (200_000,))
        assert pool.apply(square, (3,)) == 9

    def test_pools_do_not_travel(self, fork_pool):
        with pytest.raises(NotImplementedError):
            pickle.dumps(fork_pool)


def raise_two():
    raise TwoArguments(1, 2)


def raise_unsendable():
    raise Unsendable


def forget_function():
    globals().pop("vanish", None)


def forget_and_wait(seconds):
    forget_function()
    time.sleep(seconds)


def recurse():
    return recurse()


def raise_large(size):
    raise ValueError("x" * size)


def raise_chain(length):
    try:
        if length > 1:
            raise_chain(length - 1)
    except ValueError as error:
        raise ValueError(f"{length - 1}") from error
    raise ValueError("first")


def deep_list(depth):
    nested = []
    for _ in range(depth):
        nested = [nested]
    return nested


class TestMemory:
    def test_max_memory(self, make):
        limit = 600 << 20
        pool = make(1, max_memory=limit)
        with pytest.raises(MemoryError, match=str(limit)):
            pool.apply(fill, (2 << 30,))
        assert pool.apply(fill, (1 << 20,)) == 1 << 20

    def test_a_limit_of_the_task_s_own(self, make):
        pool = make(1)
        with pytest.raises(MemoryError, match=f"{1 << 30} bytes of address space"):
            pool.apply(limit_and_fill, (1 << 30, 2 << 30))
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]

    def test_nothing_stays_in_the_heap(self):
        gc.collect()
        before = _native.heap_stats().get("bytes_live", 0)
        with tenfold.get_context("fork").Pool(2) as pool:
            # What the batch for further calls holds is bounded.
            for _ in range(12):
                use(pool)
                gc.collect()
                assert _native.heap_stats()["bytes_live"] < before + (1 << 20)
        pool.join()
        del pool
        gc.collect()
        eventually(lambda: _native.heap_stats()["bytes_live"] < before + (1 << 16))


def fill(size):
    return len(bytearray(size))


def limit_and_fill(limit, size):
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return fill(size)


def use(pool):
    assert len(pool.map(same, ["x" * 100_000] * 20)) == 20
    assert len(list(pool.imap(same, ["x" * 1000] * 200))) == 200
    results = [pool.apply_async(same, ("y" * 10_000,)) for _ in range(50)]
    del results[::2]
    assert all(result.get() for result in results)
    with pytest.raises(WorkerDied):
        pool.map(die_at_three, range(5))


class TestStart:
    def test_a_failing_initializer_is_one_clear_error(self, make, capfd):
        pool = make(2, initializer=raise_it, initargs=(ValueError("not like this"),))
        for call in (
            lambda: pool.map(square, range(3)),
            lambda: pool.apply(square, (3,)),
            lambda: next(pool.imap(square, range(3))),
            lambda: pool.apply_async(square, (3,)).get(20),
        ):
            with pytest.raises(BrokenPool, match="not like this") as caught:
                call()
            assert isinstance(caught.value.reason, ValueError)
        pool.close()
        pool.join()
        assert capfd.readouterr().err.count("Traceback") <= 1

    @pytest.mark.parametrize("how", ["_exit", "kill", "exit"])
    def test_workers_that_die_in_their_start_make_no_storm(self, make, tmp_path, how):
        pool = make(2, initializer=note_and_die, initargs=(str(tmp_path), how))
        with pytest.raises(BrokenPool):
            pool.apply(square, (3,))
        with pytest.raises(BrokenPool):
            pool.map_async(square, range(3), error_callback=print).get(20)
        pool.terminate()
        pool.join()
        assert len(list(tmp_path.iterdir())) <= 8

    def test_a_main_module_that_dies_in_the_child(self, python):
        out = python(
            "import os, tenfold\n"
            "if __name__ != '__main__': os._exit(5)\n"
            "pool = tenfold.get_context('spawn').Pool(2)\n"
            "try: pool.apply(len, ('abc',))\n"
            "except tenfold.pool.BrokenPool as error: print(error)\n"
            "pool.terminate()\n"
        )
        assert "exit code 5" in out

    def test_initializer_and_its_arguments(self, make):
        pool = make(2, initializer=remember, initargs=(5,))
        assert pool.apply(recall) == 5

    def test_workers_are_replaced_after_so_many_tasks(self, make):
        pool = make(1, maxtasksperchild=2)
        pids = [pool.apply(pid_after, (0,)) for _ in range(6)]
        assert len(set(pids)) == 3
        # A chunk counts as one task.
        assert len(set(pool.map(pid_after, [0] * 40, chunksize=20))) == 1

    def test_wrong_arguments(self, fork_pool):
        for wrong in (
            {"processes": 0},
            {"maxtasksperchild": 0},
            {"max_memory": 0},
            {"processes": 999},
        ):
            with pytest.raises(ValueError):
                Pool(**wrong)
        with pytest.raises(TypeError):
            Pool(1, initializer=3)
        with pytest.raises(TypeError):
            fork_pool.map(square, 5)
        with pytest.raises(ValueError, match="Chunksize"):
            fork_pool.imap(square, [1], 0)
        with pytest.raises(ValueError, match="buffersize"):
            fork_pool.imap(square, [1], buffersize=0)

    def test_an_idle_pool_uses_no_processor_time(self, make):
        pool = make(4)
        pool.map(square, range(8))
        time.sleep(0.3)

        def used():
            workers = [int(open(f"/proc/{w.pid}/schedstat").read().split()[0]) for w in pool._pool]
            return time.process_time_ns(), workers

        before = used()
        time.sleep(2)
        after = used()
        assert after[1] == before[1]
        assert after[0] - before[0] < 20_000_000


_remembered = None


def remember(value):
    global _remembered
    _remembered = value


def recall():
    return _remembered


def note_and_die(folder, how):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    HOW[how]()


class TestStreams:
    def test_inputs_are_read_whether_results_are_asked_for_or_not(self, make):
        read = []

        def inputs():
            for n in range(3000):
                read.append(n)
                yield n

        pool = make()
        results = pool.imap(square, inputs())
        pool.close()
        pool.join()
        assert len(read) == 3000
        assert list(results) == [n * n for n in range(3000)]

    def test_buffersize_holds_back(self, make):
        read = []

        def inputs():
            for n in range(100):
                read.append(n)
                yield n

        pool = make()
        results = pool.imap(square, inputs(), buffersize=5)
        time.sleep(0.3)
        assert len(read) == 5
        assert [next(results) for _ in range(20)] == [n * n for n in range(20)]
        eventually(lambda: len(read) == 25)
        time.sleep(0.1)
        assert len(read) == 25
        assert list(results) == [n * n for n in range(20, 100)]

    def test_a_slow_input_delays_no_result(self, make):
        def inputs():
            yield 1
            yield 2
            gate.wait(60)
            yield 3

        gate = threading.Event()
        pool = make()
        results = pool.imap(square, inputs())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(tenfold.TimeoutError):
            results.next(0.05)
        gate.set()
        assert list(results) == [9]

    def test_an_input_that_raises(self, make):
        def inputs(count):
            yield from range(count)
            raise KeyError("no more")

        pool = make()
        with pytest.raises(KeyError, match="no more"):
            pool.map(square, inputs(10))
        for kind in (pool.imap, pool.imap_unordered):
            results, found = kind(square, inputs(10)), []
            with pytest.raises(KeyError, match="no more"):
                while True:
                    found.append(next(results))
            rest = list(results)
            assert sorted(found + rest) == [n * n for n in range(10)]
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_terminate_in_the_middle(self, make):
        def inputs():
            n = 0
            while True:
                yield n
                n += 1

        pool = make()
        results = pool.imap(pid_after, (0.01 for _ in inputs()))
        next(results)
        pending = pool.map_async(pid_after, [60] * 10_000, chunksize=1)
        heralded = pool.apply_async(square, (3,), callback=print)
        pool.terminate()
        pool.join()
        with pytest.raises(PoolTerminated):
            while True:
                next(results)
        for result in (pending, heralded):
            result.wait(20)
            with pytest.raises(PoolTerminated):
                result.get(20)

    def test_asyncio(self, make):
        pool = make()

        async def main():
            one = pool.apply_async(square, (3,))
            failing = pool.apply_async(raise_it, (KeyError("k"),))
            many = pool.map_async(square, range(50))
            assert await one == 9
            assert await many == [n * n for n in range(50)]
            with pytest.raises(KeyError):
                await failing
            assert await one == 9
            assert [x async for x in pool.imap(square, range(200))] == [n * n for n in range(200)]
            unordered = pool.imap_unordered(pid_after, (0.001 for _ in range(20)))
            assert len([x async for x in unordered]) == 20
            slow = [pool.apply_async(pid_after, (0.05,)) for _ in range(6)]
            assert len(await asyncio.gather(*slow)) == 6

        asyncio.run(asyncio.wait_for(main(), 60))


class TestCallbacks:
    def test_a_callback_has_run_before_its_result_is_ready(self, make):
        pool = make()
        seen = []

        def slow(value):
            time.sleep(0.05)
            seen.append(value)

        results = [pool.apply_async(square, (n,), callback=slow) for n in range(5)]
        for n, result in enumerate(results):
            result.get(20)
            assert n * n in seen
        assert pool.map_async(square, range(3), callback=seen.append).get(20) == [0, 1, 4]
        assert seen[-1] == [0, 1, 4]

    def test_join_waits_for_callbacks(self, make):
        pool = make()
        seen = []
        for n in range(200):
            pool.apply_async(square, (n,), callback=seen.append)
        pool.close()
        pool.join()
        assert sorted(seen) == [n * n for n in range(200)]

    def test_a_callback_that_raises_is_reported_and_others_run(self, make, monkeypatch):
        reports = []
        monkeypatch.setattr(threading, "excepthook", reports.append)
        pool = make()
        seen = []
        first = pool.apply_async(square, (3,), callback=lambda _: 1 / 0)
        second = pool.apply_async(square, (4,), callback=seen.append)
        assert (first.get(20), second.get(20), seen) == (9, 16, [16])
        assert [report.exc_type for report in reports] == [ZeroDivisionError]

    def test_many(self, fork_pool):
        seen = []
        results = [fork_pool.apply_async(same, (n,), callback=seen.append) for n in range(20_000)]
        results[-1].get(60)
        eventually(lambda: len(seen) == 20_000)


class TestNesting:
    def test_three_deep(self, make):
        assert make().map(inner, [(2, 3), (3, 3)]) == [[[0, 1], [0, 1]], [[0, 1], [0, 1], [0, 1]]]

    def test_inner_pools_go_with_their_worker(self, make):
        pool = make()
        pids = pool.apply(start_inner)
        assert all(is_running(pid) for pid in pids)
        os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: not any(is_running(pid) for pid in pids), 5)

    def test_workers_go_with_the_program(self, python, method):
        out = python(
            "import os, signal, tenfold\n"
            "if __name__ == '__main__':\n"
            f"    pool = tenfold.get_context('{method}').Pool(2)\n"
            "    pool.apply(len, ('abc',))\n"
            "    print(*(w.pid for w in pool._pool), flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n",
            status=-9,
        )
        eventually(lambda: not any(is_running(int(pid)) for pid in out.split()), 5)


def inner(sizes):
    count, depth = sizes
    with tenfold.Pool(2) as pool:
        if depth == 2:
            return pool.map(same, range(count))
        return pool.map(inner, [(2, depth - 1)] * count)


_kept = []


def start_inner():
    pool = tenfold.Pool(2)
    pool.apply(square, (3,))
    _kept.append(pool)
    return [os.getpid(), *(worker.pid for worker in pool._pool)]


INTERRUPTED = """
import os, signal, sys, threading, time, tenfold

def slow(x):
    time.sleep(60)

def interrupt():
    time.sleep(0.7)
    os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    pool = tenfold.get_context({method!r}).Pool(3)
    print(*(w.pid for w in pool._pool), flush=True)
    threading.Thread(target=interrupt, daemon=True).start()
    {statement}
"""
STATEMENTS = {
    "map": "pool.map(slow, range(10))",
    "get": "pool.apply_async(slow, (1,)).get()",
    "wait": "pool.apply_async(slow, (1,)).wait()",
    "imap": "list(pool.imap(slow, (i for i in range(10))))",
    "join": "pool.map_async(slow, range(10)); pool.close(); pool.join()",
    "with": "\n    with pool: pool.map(slow, range(10))",
}


@pytest.mark.parametrize("wait", sorted(STATEMENTS))
def test_ctrl_c_ends_a_program_with_one_traceback(python, method, wait):
    source = INTERRUPTED.format(method=method, statement=STATEMENTS[wait])
    out = python(source, status=-signal.SIGINT, stderr="KeyboardInterrupt", tracebacks=1)
    eventually(lambda: not any(is_running(int(pid)) for pid in out.split()), 5)


class TestEnds:
    def test_a_pool_nobody_holds_ends(self, method):
        pool = tenfold.get_context(method).Pool(2)
        pool.map(square, range(4))
        pids = [worker.pid for worker in pool._pool]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del pool
            gc.collect()
        eventually(lambda: not any(is_running(pid) for pid in pids))

    def test_after_close(self, make):
        pool = make()
        result = pool.map_async(square, range(100))
        pool.close()
        for call in (pool.map, pool.imap, pool.apply_async):
            with pytest.raises(ValueError, match="not running"):
                call(square, [1])
        pool.join()
        assert result.get() == [n * n for n in range(100)]

    def test_join_before_close(self, fork_pool):
        with pytest.raises(ValueError, match="still running"):
            fork_pool.join()

    def test_terminate_is_quick_and_can_be_repeated(self, make):
        pool = make(4)
        pool.map_async(pid_after, [60] * 10_000, 1)
        kill_all(pool._pool)
        pool.terminate()
        pool.terminate()
        pool.join()
        assert not any(worker.is_alive() for worker in pool._pool)

    def test_a_worker_that_does_not_want_to_go(self, make):
        pool = make(1)
        pool.apply(signal.signal, (signal.SIGTERM, signal.SIG_IGN))
        pid = pool._pool[0].pid
        pool.terminate()
        pool.join()
        assert not is_running(pid)

    def test_a_child_of_fork_leaves_its_parent_s_pool_alone(self, fork_pool):
        result = fork_pool.apply_async(pid_after, (0.2,))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                fork_pool.terminate()
                code = 2
                result.get(5)
            except RuntimeError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert result.get(20)
        assert fork_pool.map(square, range(4)) == [0, 1, 4, 9]

    def test_no_thread_stays(self, make):
        before = threading.active_count()
        for _ in range(3):
            pool = make()
            pool.apply_async(square, (3,), callback=lambda _: None).get(20)
            list(pool.imap(square, (n for n in range(10))))
            pool.close()
            pool.join()
        eventually(lambda: threading.active_count() <= before)

    def test_descriptors_stay_the_same(self):
        def cycle():
            with tenfold.get_context("fork").Pool(2) as pool:
                pool.map(square, range(4))
            pool.join()

        cycle()
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            cycle()
        gc.collect()
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


class QueuedPool(Pool):
    """Brings queues of its own, as joblib's pool does."""

    def _setup_queues(self):
        super()._setup_queues()
        self.queues_were_set_up = True


class TestFriends:
    def test_who_brings_queues_gets_the_standard_library_s_pool(self):
        with QueuedPool(2) as pool:
            assert pool.queues_were_set_up
            assert pool._board is None
            assert pool.map(square, range(10)) == [n * n for n in range(10)]
            assert list(pool.imap(square, range(10))) == [n * n for n in range(10)]
            assert pool.apply(square, (3,)) == 9
        pool.join()

    def test_thread_pool(self):
        with ThreadPool(2) as pool:
            assert isinstance(pool, Pool)
            assert pool.map(lambda x: x + 1, range(5)) == [1, 2, 3, 4, 5]
            assert list(pool.imap(lambda x: x + 1, range(5))) == [1, 2, 3, 4, 5]
        pool.join()

    def test_types(self, fork_pool):
        import multiprocessing.pool

        assert isinstance(fork_pool, multiprocessing.pool.Pool)
        assert isinstance(fork_pool.apply_async(square, (3,)), multiprocessing.pool.AsyncResult)
        assert isinstance(fork_pool.map_async(square, [3]), multiprocessing.pool.MapResult)
        assert isinstance(fork_pool.imap(square, [3]), IMapIterator)
        assert isinstance(fork_pool.imap(square, [3]), multiprocessing.pool.IMapIterator)

    def test_joblib(self, python):
        pytest.importorskip("joblib")
        out = python(
            "import tenfold; tenfold.install()\n"
            "from joblib import Parallel, delayed\n"
            "def f(x): return x * x\n"
            "if __name__ == '__main__':\n"
            "    parallel = Parallel(n_jobs=2, backend='multiprocessing')\n"
            "    print(parallel(delayed(f)(i) for i in range(9)))\n"
        )
        assert out.strip() == str([n * n for n in range(9)])
