"""Pools from their start to their end, pools in pools, and Ctrl-C."""

import gc
import os
import signal
import threading
import time
import warnings

import pytest
from companions import in_thread, is_running
from pool_tasks import (
    InterruptsItsReport,
    eventually,
    inner,
    kill_all,
    note_and_die,
    pid_after,
    raise_interrupting,
    raise_it,
    recall,
    remember,
    square,
    start_daemons,
    start_inner,
    start_well_or_not,
    wait_and_raise,
)

import tenfold
from tenfold.pool import (
    BrokenPool,
    Pool,
    WorkerDied,
)


class TestStart:
    @pytest.mark.fault(6)
    def test_a_failing_initializer_is_one_clear_error(self, make_pool, capfd):
        pool = make_pool(2, initializer=raise_it, initargs=(ValueError("not like this"),))
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

    @pytest.mark.fault(6)
    @pytest.mark.parametrize("how", ["_exit", "kill", "exit"])
    def test_workers_that_die_in_their_start_make_no_storm(self, make_pool, tmp_path, how):
        pool = make_pool(2, initializer=note_and_die, initargs=(str(tmp_path), how))
        with pytest.raises(BrokenPool):
            pool.apply(square, (3,))
        with pytest.raises(BrokenPool):
            pool.map_async(square, range(3), error_callback=print).get(20)
        pool.terminate()
        pool.join()
        assert len(list(tmp_path.iterdir())) <= 8

    @pytest.fixture(params=["raise", "_exit", "kill"])
    def crippled(self, request, ctx, make_pool, tmp_path):
        """A pool with one good worker whose others have failed several times; a count of all."""
        go = ctx.Event()
        arguments = (str(tmp_path), go, request.param)
        pool = make_pool(3, initializer=start_well_or_not, initargs=arguments)
        assert pool.apply(square, (3,)) == 9
        go.set()

        def count():
            return len([name for name in os.listdir(tmp_path) if name.isdigit()])

        eventually(lambda: count() >= 6)
        return pool, count

    @pytest.mark.fault(6)
    def test_a_pool_with_a_worker_that_works_goes_on(self, crippled, tmp_path):
        pool, count = crippled
        before, begin = count(), time.monotonic()
        while time.monotonic() < begin + 0.5:
            assert pool.map(square, range(10)) == [n * n for n in range(10)]
        # The others are tried one at a time, and the pauses grow from 0.1 s on.
        assert count() - before <= 10 * (time.monotonic() - begin) + 1
        # What hindered them is over.
        (tmp_path / "well").touch()
        eventually(lambda: pool._board.present_workers() == 3)
        assert pool.map(square, range(10)) == [n * n for n in range(10)]

    @pytest.mark.fault(6)
    def test_a_pool_whose_last_worker_that_works_is_killed_is_broken(self, crippled):
        pool, count = crippled
        before = count()
        os.kill(pool.apply(os.getpid), signal.SIGKILL)
        with pytest.raises((BrokenPool, WorkerDied)):
            pool.map(square, range(10))
        with pytest.raises(BrokenPool):
            pool.map(square, range(10))
        assert count() - before <= 6

    @pytest.mark.fault(6)
    def test_calls_that_wait_already_each_get_the_error(self, ctx, make_pool):
        go = ctx.Event()
        pool = make_pool(2, initializer=wait_and_raise, initargs=(go,))
        got = []

        def call(function):
            try:
                got.append(function())
            except BrokenPool as error:
                got.append(type(error.reason))

        callers = [
            in_thread(call, function)
            for function in (
                lambda: pool.map(square, range(3)),
                lambda: pool.apply(square, (3,)),
                lambda: next(pool.imap(square, range(3))),
                lambda: next(pool.imap_unordered(square, range(3))),
                pool.starmap_async(square, [(1,)]).get,
                pool.apply_async(square, (3,)).get,
            )
        ]
        # They have nothing to do but wait.
        time.sleep(0.2)
        assert not got
        go.set()
        for caller in callers:
            caller.join(20)
        assert got == [LookupError] * 6

    @pytest.mark.fault(6)
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

    def test_initializer_and_its_arguments(self, make_pool):
        pool = make_pool(2, initializer=remember, initargs=(5,))
        assert pool.apply(recall) == 5

    def test_workers_are_replaced_after_so_many_tasks(self, make_pool):
        pool = make_pool(1, maxtasksperchild=2)
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

    def test_an_idle_pool_uses_no_processor_time(self, make_pool):
        pool = make_pool(4)
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


class TestNesting:
    @pytest.mark.fault(17)
    def test_three_deep(self, make_pool):
        twice = [[0, 1], [0, 1]]
        assert make_pool().map(inner, [(2, 3), (3, 3)]) == [twice, [*twice, [0, 1]]]

    @pytest.mark.fault(17)
    def test_inner_pools_go_with_their_worker(self, make_pool):
        pool = make_pool()
        pids = pool.apply(start_inner)
        assert all(is_running(pid) for pid in pids)
        os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: not any(is_running(pid) for pid in pids), 5)

    @pytest.mark.fault(17)
    @pytest.mark.parametrize("end", ["kill", "terminate"])
    def test_daemons_of_a_worker_go_with_it(self, make_pool, end):
        pool = make_pool(1)
        worker, *daemons = pool.apply(start_daemons)
        assert all(map(is_running, daemons))
        if end == "kill":
            os.kill(worker, signal.SIGKILL)
        else:
            pool.terminate()
        eventually(lambda: not any(map(is_running, daemons)), 5)

    @pytest.mark.fault(11)
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


@pytest.mark.fault(12)
@pytest.mark.parametrize("wait", sorted(STATEMENTS))
def test_ctrl_c_ends_a_program_with_one_traceback(python, method, wait):
    source = INTERRUPTED.format(method=method, statement=STATEMENTS[wait])
    out = python(source, status=-signal.SIGINT, stderr="KeyboardInterrupt", tracebacks=1)
    eventually(lambda: not any(is_running(int(pid)) for pid in out.split()), 5)


INTERRUPTED_IN_THE_START = """
import os, signal, threading, time, tenfold

def interrupt():
    time.sleep({delay})
    os.killpg(0, signal.SIGINT)

if __name__ == "__main__":
    tenfold.get_context({method!r}).Pool(1).close()
    threading.Thread(target=interrupt, daemon=True).start()
    pool = tenfold.get_context({method!r}).Pool(4)
    time.sleep(30)
"""


@pytest.mark.fault(12)
@pytest.mark.parametrize("delay", [0.01, 0.03, 0.1, 0.2])
def test_ctrl_c_while_workers_start(python, method, delay):
    source = INTERRUPTED_IN_THE_START.format(method=method, delay=delay)
    python(source, status=-signal.SIGINT, stderr="KeyboardInterrupt", tracebacks=1)


INTERRUPTED_WORKERS = """
import contextlib, os, signal, threading, time, tenfold

def same(x):
    return x

def interrupt():
    while not stop.wait(0.001):
        for worker in list(pool._pool):
            # One that has ended has no pid of its own any more.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGINT)

if __name__ == "__main__":
    stop = threading.Event()
    with tenfold.get_context({method!r}).Pool(2, maxtasksperchild=1) as pool:
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        # In a task it is that task's error.
        in_a_task = KeyboardInterrupt
        for x in range(15):
            with contextlib.suppress(in_a_task):
                assert pool.apply(same, (x,)) == x
        stop.set()
        thread.join()
        while True:
            with contextlib.suppress(in_a_task):
                assert pool.map(same, range(10)) == list(range(10))
                break
    pool.join()
"""


@pytest.mark.fault(12)
def test_workers_that_are_no_task_s_take_no_notice_of_ctrl_c(python, method):
    # From their start to their end, as nothing on standard error proves.
    python(INTERRUPTED_WORKERS.format(method=method))


@pytest.mark.fault(12)
def test_ctrl_c_while_a_task_s_error_is_reported_is_not_the_task_s(make_pool):
    pool = make_pool(1)
    worker = pool.apply(pid_after, (0,))
    with pytest.raises(InterruptsItsReport):
        pool.apply(raise_interrupting)
    assert pool.apply(pid_after, (0,)) == worker


UNFINISHED = """
import itertools, time, tenfold

def slow(x):
    time.sleep(0.01)
    return x

if __name__ == "__main__":
    pool = tenfold.get_context({method!r}).Pool(2)
    held_back = pool.imap(slow, itertools.count(), buffersize=3)
    stream = pool.imap_unordered(slow, (n for n in itertools.count()))
    rest = pool.map_async(slow, range(100_000))
    called_back = pool.apply_async(slow, (1,), callback=len)
    next(held_back)
    next(stream)
"""


def test_a_program_may_end_in_the_middle_of_everything(python, method):
    for _ in range(3):
        python(UNFINISHED.format(method=method))


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

    @pytest.mark.fault(21)
    def test_after_close(self, make_pool):
        pool = make_pool()
        result = pool.map_async(square, range(100))
        pool.close()
        for call in (pool.map, pool.imap, pool.apply_async):
            with pytest.raises(ValueError, match="not running"):
                call(square, [1])
        pool.join()
        assert result.get() == [n * n for n in range(100)]

    @pytest.mark.fault(21)
    def test_join_before_close(self, fork_pool):
        with pytest.raises(ValueError, match="still running"):
            fork_pool.join()

    @pytest.mark.fault(19, 20)
    def test_terminate_is_quick_and_can_be_repeated(self, make_pool):
        pool = make_pool(4)
        pool.map_async(pid_after, [60] * 10_000, 1)
        kill_all(pool._pool)
        pool.terminate()
        pool.terminate()
        pool.join()
        assert not any(worker.is_alive() for worker in pool._pool)

    @pytest.mark.fault(19)
    def test_terminate_while_idle_workers_are_killed(self, make_pool):
        for _ in range(3):
            pool = make_pool(3)
            pool.map(square, range(9))
            stop = threading.Event()

            def kill(pool=pool, stop=stop):
                while not stop.is_set():
                    kill_all(pool._pool)

            killer = in_thread(kill)
            result = pool.map_async(square, range(9))
            ender = in_thread(pool.terminate)
            ender.join(30)
            stop.set()
            killer.join()
            assert not ender.is_alive()
            pool.join()
            # Done before the end, or not: but nobody waits for it.
            result.wait(20)
            assert result.ready()

    def test_a_worker_that_does_not_want_to_go(self, make_pool):
        pool = make_pool(1)
        pool.apply(signal.signal, (signal.SIGTERM, signal.SIG_IGN))
        pid = pool._pool[0].pid
        pool.terminate()
        pool.join()
        assert not is_running(pid)

    @pytest.mark.parametrize("many", [False, True], ids=["call", "map"])
    def test_a_child_of_fork_leaves_its_parent_s_pool_alone(self, fork_pool, many):
        if many:
            result = fork_pool.map_async(pid_after, [0.2] * 3)
        else:
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

    def test_no_thread_stays(self, make_pool):
        before = threading.active_count()
        for _ in range(3):
            pool = make_pool()
            pool.apply_async(square, (3,), callback=lambda _: None).get(20)
            list(pool.imap(square, (n for n in range(10))))
            pool.close()
            pool.join()
        eventually(lambda: threading.active_count() <= before)

    @pytest.mark.fault(15)
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
