"""What the standard library promises of locks, semaphores, conditions, events and barriers."""

import gc
import multiprocessing
import pickle
import sys
import threading
import time

import pytest
from companions import LONG, eventually, hold, in_thread, meet, wait_at, wait_for_event

from tenfold import _native, synchronize


class TestLock:
    def test_a_lock_is_taken_once_and_released_by_anyone(self, local):
        lock = local.Lock()
        assert lock.acquire() is True
        assert lock.acquire(False) is False
        assert lock.acquire(0) is False
        assert lock.acquire(block=False) is False
        assert lock.acquire(1, 0.01) is False
        assert lock.acquire(timeout=0) is False
        assert lock.acquire(timeout=-5) is False
        assert lock.acquire(False, 10) is False
        thread = in_thread(lock.release)
        thread.join()
        assert lock.acquire(True, None) is True
        assert lock.release() is None
        with pytest.raises(ValueError, match="released too many times"):
            lock.release()
        with pytest.raises(TypeError):
            lock.acquire(True, "soon")
        with pytest.raises(TypeError):
            lock.acquire(True, None, True)
        with lock as entered:
            assert entered is True
            assert lock.acquire(False) is False
        assert lock.acquire(False) is True

    def test_an_rlock_belongs_to_its_thread(self, local):
        lock = local.RLock()
        for _ in range(3):
            assert lock.acquire() is True
        others = []
        in_thread(lambda: others.append(lock.acquire(False))).join()
        assert others == [False]

        def release():
            with pytest.raises(AssertionError, match="not owned"):
                lock.release()
            others.append("refused")

        in_thread(release).join()
        assert others == [False, "refused"]
        with lock:
            pass
        for _ in range(3):
            lock.release()
        with pytest.raises(AssertionError):
            lock.release()
        in_thread(lambda: others.append(lock.acquire(False))).join()
        assert others[-1] is True

    def test_waiting_takes_as_long_as_it_should(self, local):
        lock = local.Lock()
        lock.acquire()
        begin = time.monotonic()
        assert lock.acquire(timeout=0.2) is False
        assert time.monotonic() - begin >= 0.2
        threading.Timer(0.1, lock.release).start()
        assert lock.acquire(timeout=LONG) is True

    def test_how_locks_print(self, local):
        lock, rlock = local.Lock(), local.RLock()
        assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
        with lock, rlock, rlock:
            assert repr(lock) == "<Lock(owner=MainProcess)>"
            assert repr(rlock) == "<RLock(MainProcess, 2)>"
            seen = []
            in_thread(lambda: seen.extend((repr(lock), repr(rlock)))).join()
            assert seen == ["<Lock(owner=SomeOtherThread)>", "<RLock(SomeOtherThread, nonzero)>"]
        seen = []

        def look():
            with lock, rlock:
                seen.extend((repr(lock), repr(rlock)))

        in_thread(look, name="T1").join()
        assert seen == ["<Lock(owner=MainProcess|T1)>", "<RLock(MainProcess|T1, 1)>"]

    def test_how_locks_of_other_processes_print(self, ctx, child):
        lock, rlock = ctx.Lock(), ctx.RLock()
        first, second = child(hold, lock), child(hold, rlock)
        first.hear("ready")
        second.hear("ready")
        assert repr(lock) == "<Lock(owner=SomeOtherProcess)>"
        assert repr(rlock) == "<RLock(SomeOtherProcess, nonzero)>"
        third = child(print_owner, ctx.Lock(), name="P1")
        third.hear("<Lock(owner=P1)>")

    def test_processes_take_turns(self, ctx, child):
        lock, total = ctx.Lock(), ctx.RawValue("q", 0)
        children = [child(count, lock, total, 3000) for _ in range(3)]
        count(None, lock, total, 3000)
        for one in children:
            one.hear("done")
        assert total.value == 4 * 3000

    def test_semaphores(self, local):
        semaphore = local.Semaphore(2)
        assert semaphore.acquire() is True
        with semaphore:
            assert semaphore.get_value() == 0
            assert semaphore.acquire(False) is False
            assert semaphore.acquire(True, 0.01) is False
        semaphore.release()
        semaphore.release()
        assert semaphore.get_value() == 3
        assert repr(semaphore) == "<Semaphore(value=3)>"
        bounded = local.BoundedSemaphore(1)
        with bounded:
            assert repr(bounded) == "<BoundedSemaphore(value=0, maxvalue=1)>"
        with pytest.raises(ValueError):
            bounded.release()
        assert bounded.get_value() == 1
        with pytest.raises(OSError):
            local.Semaphore(-1)
        with pytest.raises(OverflowError):
            local.Semaphore(2**31)
        with pytest.raises(TypeError):
            local.Semaphore("many")

    def test_they_are_the_standard_librarys_for_isinstance(self, local):
        from multiprocessing import synchronize as std

        for name in ("Lock", "RLock", "Condition", "Event"):
            assert isinstance(getattr(local, name)(), getattr(std, name))
        assert isinstance(local.BoundedSemaphore(), std.BoundedSemaphore)
        assert isinstance(local.BoundedSemaphore(), synchronize.Semaphore)
        assert isinstance(local.Barrier(2), threading.Barrier)
        assert isinstance(local.Lock(), std.SemLock)

    def test_what_others_know_of_the_inside(self, local):
        for lock, kind in ((local.Lock(), 1), (local.RLock(), 0)):
            inside = lock._semlock
            assert (inside.kind, inside.maxvalue, inside.name) == (kind, 1, None)
            assert (inside._count(), inside._get_value()) == (0, 1)
            assert inside._is_zero() is inside._is_mine() is False
            with inside:
                assert inside._is_zero() is inside._is_mine() is True
                assert inside._count() == 1
            assert inside.acquire(False) is True
            inside.release()
            assert isinstance(inside.handle, int)
        semaphore = local.BoundedSemaphore(3)
        semaphore.acquire()
        assert semaphore._semlock._get_value() == 2
        assert semaphore._semlock.maxvalue == 3

    def test_a_bare_pickle_is_refused(self, local):
        for thing in everything(local):
            with pytest.raises(RuntimeError, match="should only be shared"):
                pickle.dumps(thing)

    def test_a_subclass_may_have_an_init_of_its_own(self, local):
        class Named(synchronize.Lock):
            def __init__(self, name, ctx):
                super().__init__(ctx=ctx)
                self.name = name

        lock = Named("x", local)
        with lock:
            assert repr(lock) == "<Named(owner=MainProcess)>"

        class Unmade(synchronize.Lock):
            def __init__(self):
                pass

        with pytest.raises(RuntimeError, match="__init__"):
            Unmade().acquire()

    def test_nothing_is_left_of_dropped_locks(self, local):
        def make(cycles):
            for _ in range(cycles):
                everything(local)
                with local.Lock() as _, local.Semaphore(2) as _, local.RLock() as _:
                    pass
            gc.collect()
            return _native.heap_stats()

        before = make(10)
        after = make(2000)
        assert after["blocks"] == before["blocks"]
        assert after["bytes_live"] == before["bytes_live"]

    def test_a_condition_in_a_cycle_is_collected(self, local):
        before = None
        for _ in range(3):
            condition = local.Condition()
            condition._lock.condition = condition
            del condition
            gc.collect()
            before = before or _native.heap_stats()["blocks"]
            assert _native.heap_stats()["blocks"] == before


def everything(ctx):
    return [
        ctx.Lock(),
        ctx.RLock(),
        ctx.Semaphore(3),
        ctx.BoundedSemaphore(3),
        ctx.Condition(),
        ctx.Condition(ctx.Lock()),
        ctx.Event(),
        ctx.Barrier(2, timeout=1),
    ]


def print_owner(pipe, lock):
    with lock:
        pipe.send(repr(lock))


def count(pipe, lock, total, times):
    for turn in range(times):
        if turn % 2:
            with lock:
                total.value += 1
        else:
            lock.acquire()
            total.value += 1
            lock.release()
    if pipe is not None:
        pipe.send("done")


class TestCondition:
    def test_misuse(self, local):
        for condition in (local.Condition(), local.Condition(local.Lock())):
            for misuse in (condition.wait, condition.notify, condition.notify_all):
                with pytest.raises(AssertionError):
                    misuse()
            with condition:
                refused = []

                def elsewhere(condition=condition, refused=refused):
                    with pytest.raises(AssertionError):
                        condition.notify()
                    refused.append(True)

                in_thread(elsewhere).join()
                assert refused == [True]
            with pytest.raises((AssertionError, ValueError)):
                condition.release()

    def test_a_semaphore_as_the_lock(self, ctx, child):
        semaphore = ctx.Semaphore(1)
        condition = ctx.Condition(semaphore)
        for misuse in (condition.wait, condition.notify):
            with pytest.raises(AssertionError):
                misuse()
        one = child(wait_at, condition)
        one.hear("ready")
        with condition:
            condition.notify()
        one.hear(True)
        with semaphore:
            assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: True) is True
        assert semaphore.get_value() == 1
        with pytest.raises(ValueError, match="one permit"):
            ctx.Condition(ctx.Semaphore(2))

    def test_a_timeout(self, local):
        for condition in (local.Condition(), local.Condition(local.Lock())):
            with condition:
                assert condition.wait(0) is False
                begin = time.monotonic()
                assert condition.wait(0.2) is False
                assert time.monotonic() - begin >= 0.2
                assert condition.wait_for(lambda: 0, 0.05) == 0
                assert condition.wait_for(lambda: "yes") == "yes"

    def test_a_wait_lets_go_of_an_rlock_altogether(self, local):
        condition = local.Condition()

        def notify():
            with condition:
                condition.notify()

        with condition, condition:
            thread = in_thread(notify)
            assert condition.wait(LONG) is True
            assert repr(condition) == "<Condition(<RLock(MainProcess, 2)>, 0)>"
        thread.join()

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_exactly_those_that_have_waited_longest_are_notified(self, ctx, child, kind):
        condition = ctx.Condition(getattr(ctx, kind)())
        waiters = []
        for _ in range(4):
            waiters.append(child(wait_at, condition))
            waiters[-1].hear("ready")
            # It has the lock until it waits.
            with condition:
                pass
        with condition:
            assert repr(condition).endswith("4)>")
            condition.notify(0)
            condition.notify(-3)
            condition.notify()
        waiters[0].hear(True)
        assert waiters[1].is_silent()
        with condition:
            condition.notify(2)
        waiters[1].hear(True)
        waiters[2].hear(True)
        assert waiters[3].is_silent()
        with condition:
            condition.notify(sys.maxsize)
            condition.notify_all()
        waiters[3].hear(True)

    def test_a_lock_and_its_conditions_arrive_together(self, ctx, child):
        lock = ctx.Lock()
        one = child(share_a_lock, lock, ctx.Condition(lock), ctx.Condition(lock))
        one.hear(True)

    def test_around_a_lock_of_other_making(self, local):
        condition = local.Condition(multiprocessing.get_context("fork").Lock())
        with condition:
            assert condition.wait(0.01) is False
            condition.notify()

    def test_many_threads(self, local):
        condition, turns = local.Condition(local.Lock()), []

        def take_turns(me):
            for _ in range(200):
                with condition:
                    condition.wait_for(lambda: len(turns) % 3 == me)
                    turns.append(me)
                    condition.notify_all()

        threads = [in_thread(take_turns, me) for me in range(3)]
        for thread in threads:
            thread.join(LONG)
        assert turns == [0, 1, 2] * 200


def share_a_lock(pipe, lock, first, second):
    with lock:
        pipe.send(first._lock is lock and second._lock is lock and not second.acquire(False))


class TestEvent:
    def test_set_and_clear(self, local):
        event = local.Event()
        assert event.is_set() is False
        assert event.wait(0) is False
        assert event.wait(0.05) is False
        assert "unset" in repr(event)
        event.set()
        event.set()
        assert event.wait() is event.is_set() is True
        assert repr(event).endswith(" set>")
        event.clear()
        assert event.is_set() is False

    def test_all_who_wait_are_woken(self, ctx, child):
        event = ctx.Event()
        waiters = [child(wait_for_event, event) for _ in range(3)]
        for one in waiters:
            one.hear("ready")
        assert all(one.is_silent(0.1) for one in waiters)
        event.set()
        for one in waiters:
            one.hear(True)

    def test_a_short_pulse_wakes_those_who_sleep(self, ctx, child):
        event = ctx.Event()
        one = child(wait_for_event, event)
        one.hear("ready")
        assert one.is_silent(0.5)
        event.set()
        event.clear()
        one.hear(True)


class Fails:
    def __call__(self):
        raise LookupError("no")


class TestBarrier:
    def test_all_parties_meet_again_and_again(self, ctx, child):
        barrier, total = ctx.Barrier(3), ctx.RawArray("q", 3)
        others = [child(lockstep, barrier, total, me, 50) for me in (1, 2)]
        lockstep(None, barrier, total, 0, 50)
        for one in others:
            one.hear("done")
        assert not barrier.broken
        assert (barrier.parties, barrier.n_waiting) == (3, 0)

    def test_each_place_is_given_once(self, ctx, child):
        barrier = ctx.Barrier(3)
        others = [child(meet, barrier) for _ in range(2)]
        places = [barrier.wait()]
        for one in others:
            one.hear("ready")
            places.append(one.hear())
        assert sorted(places) == [0, 1, 2]

    def test_the_action_runs_once_before_anybody_goes_on(self, local):
        ran = []
        barrier = local.Barrier(2, action=lambda: ran.append(len(met)))
        met = []

        def come():
            barrier.wait()
            met.append(True)

        thread = in_thread(come)
        come()
        thread.join()
        assert (ran, len(met)) == ([0], 2)

    def test_an_action_that_raises_breaks_the_barrier(self, ctx, child):
        barrier = ctx.Barrier(2, action=Fails())
        other = child(meet, barrier)
        other.hear("ready")
        eventually(lambda: barrier.n_waiting == 1)
        with pytest.raises(LookupError):
            barrier.wait()
        other.hear("broken")
        assert barrier.broken
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()

    def test_timeouts(self, local):
        for barrier, timeout in ((local.Barrier(2), 0.05), (local.Barrier(2, timeout=0.05), None)):
            with pytest.raises(threading.BrokenBarrierError):
                barrier.wait(timeout)
            assert barrier.broken
            barrier.reset()
            assert not barrier.broken

    def test_abort_and_reset(self, ctx, child):
        barrier = ctx.Barrier(2)
        for end in (barrier.abort, barrier.reset):
            other = child(meet, barrier)
            other.hear("ready")
            eventually(lambda: barrier.n_waiting == 1)
            end()
            other.hear("broken")
            barrier.reset()
        other = child(meet, barrier)
        other.hear("ready")
        assert {barrier.wait(), other.hear()} == {0, 1}

    def test_misuse(self, local):
        with pytest.raises(ValueError):
            local.Barrier(0)
        with pytest.raises(ValueError):
            local.Barrier(-1)
        with pytest.raises(TypeError):
            local.Barrier("two")


def lockstep(pipe, barrier, total, me, rounds):
    for turn in range(rounds):
        total[me] += 1
        barrier.wait()
        assert list(total) == [turn + 1] * len(total)
        barrier.wait()
    if pipe is not None:
        pipe.send("done")
