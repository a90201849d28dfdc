"""Pools: one task dies, is late, cannot travel or needs too much memory; the others do not."""

import gc
import pickle
import signal
import threading
import time
import weakref

import pytest
from pool_tasks import (
    ENDS,
    NotPicklable,
    NotUnpicklable,
    change_and_die,
    deep_list,
    die_at,
    die_at_three,
    eventually,
    fill,
    forget_function,
    fork_and_die,
    fork_and_return,
    give,
    kill_all,
    limit_and_fill,
    once,
    pid_after,
    raise_chain,
    raise_it,
    raise_large,
    raise_two,
    raise_unsendable,
    recurse,
    same,
    square,
    vanish,
)

import tenfold
from tenfold import _native
from tenfold.pool import (
    MaybeEncodingError,
    RemoteTraceback,
    TaskCancelled,
    TaskTimeout,
    WorkerDied,
)


def private_memory():
    """Bytes that count against RLIMIT_DATA in this process."""
    with open("/proc/self/status") as status:
        (kib,) = [line.split()[1] for line in status if line.startswith("VmData:")]
    return int(kib) << 10


class TestDeaths:
    @pytest.mark.fault(1, 3)
    @pytest.mark.parametrize("how", sorted(ENDS))
    def test_one_task_is_lost_and_the_text_tells_how(self, make_pool, how):
        pool = make_pool()
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

    @pytest.mark.fault(2)
    def test_every_way_to_call(self, make_pool):
        pool = make_pool()
        errors = []
        result = pool.apply_async(die_at_three, (3,), error_callback=errors.append)
        with pytest.raises(WorkerDied):
            result.get(20)
        assert [type(error) for error in errors] == [WorkerDied]
        with pytest.raises(WorkerDied):
            pool.starmap_async(die_at, [(1,), (3,), (4,)], error_callback=errors.append).get(20)
        assert errors[1].index == 1
        with pytest.raises(WorkerDied):
            pool.map_async(die_at_three, range(5), 1, error_callback=errors.append).get(20)
        assert errors[2].index == 3
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

    @pytest.mark.fault(1)
    def test_retries(self, make_pool, tmp_path):
        pool = make_pool()
        paths = [str(tmp_path / f"{n}") for n in range(5)]
        assert pool.map(once, paths, retries=1) == ["at last"] * 5
        assert pool.apply(once, (str(tmp_path / "a"),), retries=2) == "at last"
        assert list(pool.imap(once, [str(tmp_path / "b")], retries=1)) == ["at last"]
        with pytest.raises(WorkerDied):
            pool.apply(die_at_three, (3,), retries=2)

    @pytest.mark.fault(1)
    def test_a_large_argument_is_as_it_was_when_it_is_tried_again(self, fork_pool, tmp_path):
        np = pytest.importorskip("numpy")
        before, array, path = (
            _native.heap_stats()["bytes_live"],
            np.ones(1 << 20),
            str(tmp_path / "a"),
        )
        assert fork_pool.apply(change_and_die, (path, array, 1), retries=1) == 2
        with pytest.raises(WorkerDied):
            fork_pool.apply(change_and_die, (str(tmp_path / "b"), array, 1))
        assert fork_pool.starmap(change_and_die, [(path, array, n) for n in range(9)]) == [
            *range(1, 10)
        ]
        # What was the dead worker's has gone with it.
        eventually(lambda: _native.heap_stats()["bytes_live"] < before + (1 << 20))

    @pytest.mark.fault(19)
    def test_idle_workers_are_killed(self, make_pool):
        pool = make_pool(3)
        pool.map(square, range(9))
        for _ in range(3):
            kill_all(pool._pool)
            assert pool.map(square, range(9)) == [n * n for n in range(9)]
        eventually(lambda: len(pool._pool) == 3 and all(w.is_alive() for w in pool._pool))

    @pytest.mark.fault(1)
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

    def test_a_task_that_forks_and_comes_back_twice(self, fork_pool):
        # The child is a copy of the worker in the middle of its task; the result is the worker's.
        for n in range(5):
            assert fork_pool.apply(fork_and_return, (n,)) == n
        assert fork_pool.map(fork_and_return, range(20)) == list(range(20))

    @pytest.mark.fault(3)
    def test_a_worker_that_forks_and_dies(self, fork_pool):
        # The task's child holds what the worker had open; the death must be noticed all the same.
        with pytest.raises(WorkerDied):
            fork_pool.apply(fork_and_die)
        assert fork_pool.apply(square, (3,)) == 9


class TestTimeLimits:
    def test_timeout_kills_that_task(self, make_pool):
        pool = make_pool()
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

    def test_cancel(self, make_pool):
        pool = make_pool(1)
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


class TestPickling:
    @pytest.mark.fault(5)
    def test_arguments_that_cannot_be_pickled(self, make_pool):
        pool = make_pool()
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

    @pytest.mark.fault(5)
    def test_what_cannot_be_unpickled_is_its_task_s_error(self, make_pool):
        pool = make_pool()
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

    @pytest.mark.fault(5)
    def test_a_function_that_the_worker_does_not_know(self, make_pool):
        pool = make_pool(1)
        pool.apply(forget_function)
        with pytest.raises(AttributeError, match="vanish"):
            pool.apply(vanish)
        assert pool.apply(square, (3,)) == 9

    def test_remote_tracebacks(self, make_pool):
        pool = make_pool()
        with pytest.raises(KeyError) as caught:
            pool.apply(raise_it, (KeyError("here"),))
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in raise_it" in str(caught.value.__cause__)

    @pytest.mark.fault(18)
    @pytest.mark.parametrize(
        "exception",
        [KeyboardInterrupt("k"), GeneratorExit("g"), BaseException("b"), RecursionError()],
    )
    def test_any_exception_is_the_task_s(self, make_pool, exception):
        pool = make_pool()
        with pytest.raises(type(exception)):
            pool.apply(raise_it, (exception,))
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    @pytest.mark.fault(18)
    def test_deep_and_large_exceptions(self, make_pool):
        pool = make_pool()
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

    @pytest.mark.slow
    @pytest.mark.fault(18)
    def test_an_exception_of_200_million_characters(self, make_pool):
        pool = make_pool(1)
        with pytest.raises(ValueError, match="xxxx") as caught:
            pool.apply(raise_large, (200_000_000,))
        assert len(caught.value.args[0]) == 200_000_000
        assert pool.apply(square, (3,)) == 9

    @pytest.mark.fault(20)
    def test_an_iterable_that_raises_half_way(self, make_pool):
        def broken():
            yield from [(1,), (2,), (3,)]
            raise LookupError("half-way")

        pool = make_pool()
        for call in (pool.map, pool.starmap, pool.map_async, pool.starmap_async):
            with pytest.raises(LookupError, match="half-way"):
                call(same, broken())
        for call in (pool.imap, pool.imap_unordered):
            results = call(same, broken())
            assert sorted(next(results) for _ in range(3)) == [(1,), (2,), (3,)]
            with pytest.raises(LookupError, match="half-way"):
                next(results)
        assert pool.map(square, range(4)) == [0, 1, 4, 9]

    @pytest.mark.fault(20)
    def test_an_iterable_s_error_comes_after_all_results(self, make_pool):
        def broken():
            yield from [0.2] * 3
            raise LookupError("half-way")

        pool = make_pool()
        for call in (pool.imap, pool.imap_unordered):
            results = call(pid_after, broken())
            assert len([next(results) for _ in range(3)]) == 3
            with pytest.raises(LookupError, match="half-way"):
                next(results)
            assert list(results) == []

    def test_pools_do_not_travel(self, fork_pool):
        with pytest.raises(NotImplementedError):
            pickle.dumps(fork_pool)


def use(pool):
    assert len(pool.map(same, ["x" * 100_000] * 20)) == 20
    assert len(list(pool.imap(same, ["x" * 1000] * 200))) == 200
    results = [pool.apply_async(same, ("y" * 10_000,)) for _ in range(50)]
    del results[::2]
    assert all(result.get() for result in results)
    with pytest.raises(WorkerDied):
        pool.map(die_at_three, range(5))


class TestMemory:
    def test_an_error_that_refers_to_its_result_is_collected(self, fork_pool):
        def raise_and_keep():
            result = fork_pool.apply_async(raise_it, (KeyError("k"),))
            try:
                result.get()
            except KeyError:
                return weakref.ref(result)

        gone = [raise_and_keep() for _ in range(5)]
        gc.collect()
        assert [weak() for weak in gone] == [None] * 5

    @pytest.mark.fault(4)
    def test_max_memory(self, make_pool):
        # A forked worker has all that the tests before have left in this process.
        limit = private_memory() + (600 << 20)
        pool = make_pool(1, max_memory=limit)
        with pytest.raises(MemoryError, match=str(limit)):
            pool.apply(fill, (limit + (1 << 30),))
        assert pool.apply(fill, (1 << 20,)) == 1 << 20

    @pytest.mark.fault(4)
    def test_a_limit_of_the_task_s_own(self, make_pool):
        pool = make_pool(1)
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
