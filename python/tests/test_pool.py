"""Pools: results of every way to call, streams, callbacks, friends."""

import asyncio
import gc
import operator
import threading
import time

import pytest
from pool_tasks import (
    bound_put,
    eventually,
    pairs,
    pid_after,
    put,
    queue_size,
    raise_it,
    same,
    square,
    wait_or_set,
)

import tenfold
from tenfold.pool import (
    IMapIterator,
    Pool,
    PoolTerminated,
    ThreadPool,
)

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
    def test_values_survive_the_journey(self, make_pool):
        pool = make_pool()
        results = pool.map(same, VALUES)
        assert results == VALUES
        assert [type(a) for a in results] == [type(b) for b in VALUES]
        assert [pool.apply(same, (value,)) for value in VALUES] == VALUES
        assert list(pool.imap(same, VALUES)) == VALUES

    def test_every_way_to_call(self, make_pool):
        pool = make_pool()
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

    def test_large_things(self, make_pool):
        numpy = pytest.importorskip("numpy")
        pool = make_pool()
        arrays = [numpy.full(200_000, n, dtype=float) for n in range(24)]
        back = pool.map(same, arrays)
        assert all((a == b).all() for a, b in zip(arrays, back))
        back[3][:] = 7  # writable, and nobody else's
        assert (pool.apply(same, (arrays[3],)) == 3).all()
        assert pool.apply(len, (b"x" * 10_000_000,)) == 10_000_000
        assert pool.apply(pairs, (arrays[2],), {"c": arrays[1]})[2].sum() == 200_000
        assert len(pool.apply(bytes, (10_000_000,))) == 10_000_000

    def test_objects_of_tenfold_travel(self, make_pool):
        pool = make_pool()
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

    def test_a_slow_first_task_holds_nothing_up(self, fork_pool):
        event, last = tenfold.Event(), 24
        items = [(event, number, last, bytes(1 << 20)) for number in range(last + 8)]
        assert fork_pool.starmap(wait_or_set, items) == [True] * len(items)

    @pytest.mark.parametrize("count", [0, 3, 500, 4000])
    def test_the_length_is_what_the_input_says_it_is_or_not(self, fork_pool, count):
        class Numbers:
            def __len__(self):
                return 500

            def __iter__(self):
                return iter(range(count))

        assert fork_pool.map(square, Numbers()) == [n * n for n in range(count)]

    def test_functions_by_value(self, make_pool):
        pytest.importorskip("cloudpickle")
        pool = make_pool()
        offset = 10
        assert pool.map(lambda x: x + offset, range(5)) == [10, 11, 12, 13, 14]
        offset = 20
        assert pool.apply(lambda x: x + offset, (1,)) == 21

    def test_ready_successful_wait_and_timeouts(self, make_pool):
        pool = make_pool()
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

    def test_a_result_that_is_waited_for_is_small(self, fork_pool):
        result = fork_pool.apply_async(square, (3,))
        assert not any(isinstance(thing, dict) for thing in gc.get_referents(result))
        result.note = "mine"
        assert (result.get(), result.note) == (9, "mine")

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


class TestStreams:
    def test_inputs_are_read_whether_results_are_asked_for_or_not(self, make_pool):
        read = []

        def inputs():
            for n in range(3000):
                read.append(n)
                yield n

        pool = make_pool()
        results = pool.imap(square, inputs())
        pool.close()
        pool.join()
        assert len(read) == 3000
        assert list(results) == [n * n for n in range(3000)]

    def test_buffersize_holds_back(self, make_pool):
        read = []

        def inputs():
            for n in range(100):
                read.append(n)
                yield n

        pool = make_pool()
        results = pool.imap(square, inputs(), buffersize=5)
        time.sleep(0.3)
        assert len(read) == 5
        assert [next(results) for _ in range(20)] == [n * n for n in range(20)]
        eventually(lambda: len(read) == 25)
        time.sleep(0.1)
        assert len(read) == 25
        assert list(results) == [n * n for n in range(20, 100)]

    def test_a_slow_input_delays_no_result(self, make_pool):
        def inputs():
            yield 1
            yield 2
            gate.wait(60)
            yield 3

        gate = threading.Event()
        pool = make_pool()
        results = pool.imap(square, inputs())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(tenfold.TimeoutError):
            results.next(0.05)
        gate.set()
        assert list(results) == [9]

    def test_an_input_that_raises(self, make_pool):
        def inputs(count):
            yield from range(count)
            raise KeyError("no more")

        pool = make_pool()
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

    def test_terminate_in_the_middle(self, make_pool):
        def inputs():
            n = 0
            while True:
                yield n
                n += 1

        pool = make_pool()
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

    def test_asyncio(self, make_pool):
        pool = make_pool()

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
    def test_a_callback_has_run_before_its_result_is_ready(self, make_pool):
        pool = make_pool()
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

    def test_join_waits_for_callbacks(self, make_pool):
        pool = make_pool()
        seen = []
        for n in range(200):
            pool.apply_async(square, (n,), callback=seen.append)
        pool.close()
        pool.join()
        assert sorted(seen) == [n * n for n in range(200)]

    def test_a_callback_that_raises_is_reported_and_others_run(self, make_pool, monkeypatch):
        reports = []
        monkeypatch.setattr(threading, "excepthook", reports.append)
        pool = make_pool()
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
