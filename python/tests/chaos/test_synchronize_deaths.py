"""What deaths do to locks, semaphores, conditions, events and barriers."""

import os
import sys
import threading
import time

import pytest
from companions import LONG, eventually, hold, in_thread, meet, wait_at, wait_for_event

from tenfold import synchronize


def leave_held(pipe, lock, how, ending):
    if how == "with":
        lock.__enter__()
    else:
        lock.acquire()
    pipe.send("ready")
    pipe.recv()
    if ending == "_exit":
        os._exit(0)
    if ending == "_exit 3":
        os._exit(3)
    if ending == "sys.exit":
        sys.exit(4)
    if ending == "exception":
        sys.stderr = None
        raise LookupError


def outcome(pipe, lock, recover=False):
    """Takes a lock; says how that went, and holds it for a moment."""
    pipe.send("ready")
    try:
        got = lock.acquire(recover=recover)
    except synchronize.OwnerDied:
        pipe.send("OwnerDied")
        return
    pipe.send(got)
    pipe.recv()
    lock.release()


def take_permit(pipe, semaphore):
    pipe.send("ready")
    pipe.send(semaphore.acquire())


def notify_and_hold(pipe, condition):
    condition.acquire()
    condition.notify()
    pipe.send("ready")
    pipe.recv()


@pytest.mark.fault(7)
class TestKilledHolders:
    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    @pytest.mark.parametrize("how", ["acquire", "with"])
    def test_one_is_told_and_the_lock_is_free(self, ctx, child, kind, how):
        lock = getattr(ctx, kind)()
        holder = child(hold, lock, how)
        holder.hear("ready")
        assert lock.acquire(timeout=0.05) is False
        holder.kill()
        with pytest.raises(synchronize.OwnerDied):
            if how == "with":
                with lock:
                    pytest.fail("entered")
            else:
                lock.acquire()
        assert lock.acquire(timeout=LONG) is True
        lock.release()
        with lock:
            pass

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_recover_takes_it_all_the_same(self, ctx, child, kind):
        lock = getattr(ctx, kind)()
        holder = child(hold, lock)
        holder.hear("ready")
        holder.kill()
        assert lock.acquire(recover=True) is True
        others = []
        in_thread(lambda: others.append(lock.acquire(False))).join()
        assert others == [False]
        lock.release()
        assert lock.acquire() is True

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    @pytest.mark.parametrize("recover", [False, True])
    def test_of_many_who_wait_one_is_told(self, ctx, child, kind, recover):
        lock = getattr(ctx, kind)()
        holder = child(hold, lock)
        holder.hear("ready")
        waiters = [child(outcome, lock, recover) for _ in range(3)]
        for one in waiters:
            one.hear("ready")
        time.sleep(0.1)
        holder.kill()
        told = []
        waiting = list(waiters)
        while waiting:
            for one in list(waiting):
                if one.pipe.poll(0.01):
                    told.append(one.hear())
                    if told[-1] is True:
                        one.go()
                    waiting.remove(one)
        assert told.count("OwnerDied") == (0 if recover else 1)
        assert told.count(True) == (3 if recover else 2)
        assert lock.acquire(timeout=LONG) is True

    def test_a_try_is_told_too(self, ctx, child):
        lock = ctx.Lock()
        holder = child(hold, lock)
        holder.hear("ready")
        holder.kill()
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            try:
                assert lock.acquire(False) is False
            except synchronize.OwnerDied:
                break
        assert lock.acquire(False) is True

    @pytest.mark.parametrize("make", ["Value", "Array"])
    def test_the_lock_of_shared_data(self, ctx, child, make):
        data = ctx.Value("i", 1) if make == "Value" else ctx.Array("i", [1])
        holder = child(hold, data.get_lock(), "with")
        holder.hear("ready")
        holder.kill()
        with pytest.raises(synchronize.OwnerDied), data.get_lock():
            pytest.fail("entered")
        with data.get_lock():
            assert data.get_obj() is not None

    @pytest.mark.parametrize("recover", [False, True])
    def test_a_timeout_still_means_a_timeout(self, ctx, child, recover):
        lock = ctx.Lock()
        dead = child(hold, lock)
        dead.hear("ready")
        dead.kill()
        assert lock.acquire(recover=True) is True
        # Whoever holds it now lives, so there is nothing to tell.
        lock.release()
        alive = child(hold, lock)
        alive.hear("ready")
        assert lock.acquire(timeout=0.05, recover=recover) is False
        assert lock.acquire(False, recover=recover) is False

    def test_the_lock_of_a_condition(self, ctx, child):
        condition = ctx.Condition()
        holder = child(hold, condition)
        holder.hear("ready")
        holder.kill()
        with pytest.raises(synchronize.OwnerDied), condition:
            pytest.fail("entered")
        with condition:
            condition.notify()

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_a_wait_holds_the_lock_whoever_died(self, ctx, child, kind):
        condition = ctx.Condition(getattr(ctx, kind)())
        with condition:
            killed = child(notify_and_hold, condition)
            in_thread(lambda: (killed.hear("ready"), killed.kill()))
            with pytest.raises(synchronize.OwnerDied, match="holds the lock again"):
                condition.wait(LONG)
            assert condition._lock._is_mine()
            # It can go on, and the end of the block finds what it expects.
            assert condition.wait(0.01) is False
        with condition:
            pass

    def test_permits_of_with_go_back_and_tokens_do_not(self, ctx, child):
        semaphore = ctx.Semaphore(3)
        holders = [child(hold, semaphore, how) for how in ("with", "with", "acquire")]
        for one in holders:
            one.hear("ready")
        assert semaphore.get_value() == 0
        for one in holders:
            one.kill()
        assert semaphore.acquire(timeout=LONG) is True
        assert semaphore.acquire(timeout=LONG) is True
        assert semaphore.acquire(timeout=0.5) is False
        semaphore.release()
        assert semaphore.acquire(timeout=LONG) is True

    def test_a_bounded_semaphore_stays_within_its_bound(self, ctx, child):
        semaphore = ctx.BoundedSemaphore(1)
        holder = child(hold, semaphore, "with")
        holder.hear("ready")
        semaphore.release()
        holder.kill()
        eventually(lambda: semaphore.get_value() == 1)
        with pytest.raises(ValueError):
            semaphore.release()

    def test_a_death_is_one_notice_however_often_it_was_held(self, ctx, child):
        lock = ctx.RLock()
        holder = child(hold_thrice, lock)
        holder.hear("ready")
        holder.kill()
        with pytest.raises(synchronize.OwnerDied):
            lock.acquire()
        assert lock.acquire() is True
        assert repr(lock) == "<RLock(MainProcess, 1)>"

    def test_barriers_break_when_one_that_came_is_killed(self, ctx, child):
        barrier = ctx.Barrier(3)
        dies, waits = child(meet, barrier), child(meet, barrier)
        for one in (dies, waits):
            one.hear("ready")
        eventually(lambda: barrier.n_waiting == 2)
        dies.kill()
        waits.hear("broken")
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()
        barrier.reset()
        others = [child(meet, barrier) for _ in range(2)]
        assert barrier.wait(LONG) in range(3)
        for one in others:
            one.hear("ready")
            assert one.hear() in range(3)

    def test_a_killed_party_that_had_not_come_breaks_nothing(self, ctx, child):
        barrier = ctx.Barrier(2)
        bystander = child(hold, ctx.Lock(), "with")
        bystander.hear("ready")
        other = child(meet, barrier)
        other.hear("ready")
        bystander.kill()
        assert {barrier.wait(LONG), other.hear()} == {0, 1}


def hold_thrice(pipe, lock):
    for _ in range(3):
        lock.acquire()
    pipe.send("ready")
    pipe.recv()


@pytest.mark.fault(8)
class TestKilledWaiters:
    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_of_a_lock(self, ctx, child, kind):
        lock = getattr(ctx, kind)()
        lock.acquire()
        dies, waits = child(outcome, lock), child(outcome, lock)
        for one in (dies, waits):
            one.hear("ready")
        time.sleep(0.2)
        dies.kill()
        lock.release()
        waits.hear(True)
        waits.go()
        assert lock.acquire(timeout=LONG) is True

    def test_of_a_semaphore(self, ctx, child):
        semaphore = ctx.Semaphore(0)
        dies, waits = child(take_permit, semaphore), child(take_permit, semaphore)
        for one in (dies, waits):
            one.hear("ready")
        time.sleep(0.2)
        dies.kill()
        semaphore.release()
        waits.hear(True)
        assert semaphore.get_value() == 0

    @pytest.mark.parametrize("kind", ["Lock", "RLock"])
    def test_of_a_condition(self, ctx, child, kind):
        condition = ctx.Condition(getattr(ctx, kind)())
        dies, waits = child(wait_at, condition), None
        dies.hear("ready")
        with condition:
            pass
        waits = child(wait_at, condition)
        waits.hear("ready")
        with condition:
            pass
        dies.kill()
        with condition:
            condition.notify()
        waits.hear(True)

    def test_of_a_condition_after_it_was_notified(self, ctx, child):
        condition = ctx.Condition()
        dies = child(wait_at, condition)
        dies.hear("ready")
        with condition:
            pass
        waits = child(wait_at, condition)
        waits.hear("ready")
        with condition:
            # The first is marked and cannot have the lock yet.
            condition.notify()
            dies.kill()
        waits.hear(True)

    def test_of_an_event(self, ctx, child):
        event = ctx.Event()
        dies, waits = child(wait_for_event, event), child(wait_for_event, event)
        for one in (dies, waits):
            one.hear("ready")
        time.sleep(0.2)
        dies.kill()
        event.set()
        waits.hear(True)

    def test_of_a_barrier_that_came_first(self, ctx, child):
        # It breaks at once; after a reset as many as before are enough.
        barrier = ctx.Barrier(2)
        dies = child(meet, barrier)
        dies.hear("ready")
        eventually(lambda: barrier.n_waiting == 1)
        dies.kill()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(LONG)
        barrier.reset()
        other = child(meet, barrier)
        other.hear("ready")
        assert {barrier.wait(LONG), other.hear()} == {0, 1}

    def test_of_a_queue(self, ctx, child):
        q = ctx.Queue()
        dies, waits = child(get_and_say, q), child(get_and_say, q)
        for one in (dies, waits):
            one.hear("ready")
        time.sleep(0.2)
        dies.kill()
        q.put("for the other")
        waits.hear("for the other")


def get_and_say(pipe, q):
    pipe.send("ready")
    pipe.send(q.get())


@pytest.mark.fault(7)
class TestNormalEnds:
    """Whoever exits leaves locks and permits as they are, and nobody is told."""

    @pytest.mark.parametrize("ending", ["return", "_exit", "_exit 3", "sys.exit", "exception"])
    def test_a_lock_stays_taken_and_anyone_releases_it(self, ctx, child, ending):
        lock, semaphore = ctx.Lock(), ctx.Semaphore(1)
        codes = {"_exit 3": 3, "sys.exit": 4, "exception": 1}
        for thing, how in ((lock, "acquire"), (semaphore, "with")):
            holder = child(leave_held, thing, how, ending)
            holder.hear("ready")
            holder.go()
            holder.end(codes.get(ending, 0))
            assert thing.acquire(timeout=0.3) is False
            thing.release()
            assert thing.acquire(timeout=LONG) is True

    def test_an_rlock_stays_taken(self, ctx, child):
        lock = ctx.RLock()
        holder = child(leave_held, lock, "acquire", "return")
        holder.hear("ready")
        holder.go()
        holder.end()
        assert lock.acquire(timeout=0.3) is False
        with pytest.raises(AssertionError, match="not owned by thread"):
            lock.release()
        assert repr(lock) == "<RLock(SomeOtherProcess, nonzero)>"

    def test_a_lock_may_be_released_by_another_process(self, ctx, child):
        lock = ctx.Lock()
        holder = child(hold, lock)
        holder.hear("ready")
        lock.release()
        assert lock.acquire(timeout=LONG) is True
        holder.kill()
        # What it had taken was not its own any more.
        lock.release()
        assert lock.acquire(timeout=LONG) is True
