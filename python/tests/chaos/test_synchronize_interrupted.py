"""Locks and their like in signal handlers, under Ctrl-C, and across a fork."""

import os
import signal
import threading
import time

import pytest
from companions import LONG, eventually, in_thread, meet, wait_at

from tenfold import synchronize


def interrupt_in(pipe, what, *things):
    """Waits in `what`, and says which exceptions came, once each."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    calls = {
        "acquire": lambda: things[0].acquire(),
        "with": lambda: things[0].__enter__(),
        "timeout": lambda: things[0].acquire(timeout=600),
        "wait": lambda: things[0].wait(),
        "wait timeout": lambda: things[0].wait(600),
    }
    condition = "wait" in what and isinstance(things[0], synchronize.Condition)
    if condition:
        things[0].acquire()
    try:
        pipe.send("ready")
        calls[what]()
    except KeyboardInterrupt:
        pipe.send("KeyboardInterrupt")
    if condition:
        mine = things[0]._lock._is_mine()
        pipe.send(mine)
        if mine:
            things[0].release()
    pipe.send("done")


def held(ctx, kind):
    lock = getattr(ctx, kind)()
    lock.acquire()
    return lock


class TestSignals:
    WAITS = {
        "Lock": (lambda ctx: held(ctx, "Lock"), "acquire"),
        "Lock with": (lambda ctx: held(ctx, "Lock"), "with"),
        "Lock timeout": (lambda ctx: held(ctx, "Lock"), "timeout"),
        "RLock": (lambda ctx: held(ctx, "RLock"), "acquire"),
        "Semaphore": (lambda ctx: ctx.Semaphore(0), "acquire"),
        "Semaphore with": (lambda ctx: ctx.Semaphore(0), "with"),
        "Condition": (lambda ctx: ctx.Condition(), "wait"),
        "Condition of a Lock": (lambda ctx: ctx.Condition(ctx.Lock()), "wait timeout"),
        "Event": (lambda ctx: ctx.Event(), "wait"),
        "Barrier": (lambda ctx: ctx.Barrier(2), "wait"),
    }

    @pytest.mark.fault(12)
    @pytest.mark.parametrize("which", WAITS)
    def test_ctrl_c_ends_a_wait_once(self, ctx, child, which):
        make, what = self.WAITS[which]
        thing = make(ctx)
        one = child(interrupt_in, what, thing)
        one.hear("ready")
        time.sleep(0.3)
        os.kill(one.pid, signal.SIGINT)
        one.hear("KeyboardInterrupt")
        if which.startswith("Condition"):
            one.hear(True)
        one.hear("done")
        one.end()
        if which.startswith(("Lock", "RLock")):
            thing.release()
            assert thing.acquire(timeout=LONG) is True

    def test_a_handler_that_returns_does_not_end_a_wait(self, local):
        seen = []
        before = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            begin = time.monotonic()
            assert held(local, "Lock").acquire(timeout=0.5) is False
            assert local.Event().wait(0.5) is False
            assert time.monotonic() - begin >= 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        # Handlers run when the signal comes, not when the wait ends.
        assert len([at for at in seen if at - begin < 0.45]) >= 3

    def test_a_handler_may_use_what_it_interrupts(self, local):
        event, lock = local.Event(), local.Lock()

        def handler(*_):
            with lock:
                event.set()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert event.wait(LONG) is True
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_second_ctrl_c_ends_the_way_back_to_the_lock(self, ctx, child):
        condition = ctx.Condition(ctx.Lock())
        one = child(interrupt_in, "wait", condition)
        one.hear("ready")
        with condition:
            for _ in range(2):
                time.sleep(0.3)
                os.kill(one.pid, signal.SIGINT)
            one.hear("KeyboardInterrupt")
            one.hear(False)

    def test_an_interrupted_waiter_passes_its_notice_on(self, ctx, child):
        condition = ctx.Condition()
        first = child(interrupt_in, "wait", condition)
        first.hear("ready")
        with condition:
            pass
        second = child(wait_at, condition)
        second.hear("ready")
        with condition:
            condition.notify()
            os.kill(first.pid, signal.SIGINT)
            time.sleep(0.3)
        # Whether it was notified or interrupted first, one of the two is notified.
        if first.hear() == "KeyboardInterrupt":
            second.hear(True)

    @pytest.mark.fault(12)
    def test_an_interrupted_party_breaks_its_barrier(self, ctx, child):
        # The standard library lets the others wait; here they learn that one has gone.
        barrier = ctx.Barrier(3)
        interrupted, waits = child(interrupt_in, "wait", barrier), child(meet, barrier)
        for one in (interrupted, waits):
            one.hear("ready")
        eventually(lambda: barrier.n_waiting == 2)
        os.kill(interrupted.pid, signal.SIGINT)
        interrupted.hear("KeyboardInterrupt")
        waits.hear("broken")
        assert barrier.broken

    def test_waits_let_other_threads_run(self, local):
        lock = held(local, "Lock")
        waiter = in_thread(lock.acquire)
        begin = time.monotonic()
        ticks = 0
        while time.monotonic() < begin + 0.3:
            ticks += 1
        assert ticks > 1000
        lock.release()
        waiter.join(LONG)
        assert not waiter.is_alive()

    def test_a_waiting_thread_does_not_keep_the_main_one_from_ctrl_c(self, ctx, child):
        one = child(interrupt_beside_a_waiter, held(ctx, "Lock"))
        one.hear("ready")
        os.kill(one.pid, signal.SIGINT)
        one.hear("KeyboardInterrupt")


def interrupt_beside_a_waiter(pipe, lock):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_thread(lock.acquire)
    try:
        time.sleep(0.2)
        pipe.send("ready")
        time.sleep(600)
    except KeyboardInterrupt:
        pipe.send("KeyboardInterrupt")


def each_kind(ctx):
    return [ctx.Lock(), ctx.RLock(), ctx.Semaphore(3), ctx.Condition(), ctx.Event(), ctx.Barrier(2)]


@pytest.mark.fault(16)
class TestFork:
    def fork(self, function):
        """Run a function in a forked child, which must return true."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if function() else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    def test_locks_that_other_threads_hold_are_not_the_childs(self, local):
        lock, rlock, condition = local.Lock(), local.RLock(), local.Condition()
        release, holding = threading.Event(), threading.Barrier(2)

        def holder():
            with lock, rlock, condition:
                holding.wait()
                release.wait()

        thread = in_thread(holder)
        holding.wait()

        def child():
            mine = [x._semlock._is_mine() or x.acquire(False) for x in (lock, rlock)]
            return mine == [False, False] and repr(lock) == "<Lock(owner=SomeOtherProcess)>"

        self.fork(child)
        release.set()
        thread.join()
        self.fork(lambda: lock.acquire() and rlock.acquire() and condition.acquire())

    def test_a_child_of_a_busy_parent_can_use_locks(self, local):
        lock, condition, stop = local.Lock(), local.Condition(), threading.Event()

        def busy():
            while not stop.is_set():
                with lock:
                    pass
                with condition:
                    condition.notify_all()
                each_kind(local)

        threads = [in_thread(busy) for _ in range(3)]

        def child():
            for _ in range(20):
                with lock, condition:
                    each_kind(local)
            return True

        try:
            for _ in range(20):
                self.fork(child)
        finally:
            stop.set()
        for thread in threads:
            thread.join()

    def test_the_thread_that_forks_keeps_what_it_holds(self, local):
        lock, rlock = held(local, "Lock"), held(local, "RLock")

        def child():
            return not lock.acquire(False) and not rlock.acquire(False)

        self.fork(child)
        rlock.release()
        lock.release()


@pytest.mark.fault(16)
class TestForkBesideBusyThreads:
    def test_a_child_logs_prints_and_uses_everything(self, python):
        # Threads are in the middle of each of these whenever the main one forks. The stream has no
        # buffer: CPython's buffers have a lock that a fork leaves taken in the child.
        out = python("""
import io, logging, os, threading
import tenfold

ctx = tenfold.get_context("fork")
null = io.TextIOWrapper(open(os.devnull, "wb", buffering=0), write_through=True)
logging.basicConfig(stream=null, level=logging.INFO)
lock, q, value, shared = ctx.Lock(), ctx.Queue(), ctx.Value("i", 0), ctx.Manager().dict()
stop = threading.Event()

def work(n):
    with lock:
        pass
    q.put(n)
    q.get()
    with value.get_lock():
        value.value += 1
    shared[n] = n
    logging.info("number %d", n)
    print("number", n, file=null)
    ctx.Queue(), ctx.Event()

def busy(n):
    while not stop.is_set():
        work(n)

def child(n):
    for _ in range(20):
        work(n)

threads = [threading.Thread(target=busy, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
try:
    for n in range(30):
        one = ctx.Process(target=child, args=(100 + n,))
        one.start()
        one.join(30)
        assert one.exitcode == 0, (n, one.exitcode)
    with ctx.Pool(2) as pool:
        assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
finally:
    stop.set()
for thread in threads:
    thread.join()
print("done")
""")
        assert out == "done\n"
