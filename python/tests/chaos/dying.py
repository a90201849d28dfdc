#!/usr/bin/env python3
"""Processes that die at the engine's kill-points, and what those who live on find.

usage: dying.py METHOD PASSES...

For a package whose native module is built with the feature `kill-points`. For each point and each
number of passes, a child runs all that there is to do until it is killed there. Then this process,
which shares every object with it, checks what it left, does all the same itself, drops the objects
and has as much in the heap as before. The same with a pool's worker that dies.

Prints a JSON object: the point → how many deaths there were. The exit status is 1, with a
traceback, if anything is wrong after a death or hangs.
"""

import contextlib
import faulthandler
import gc
import json
import os
import queue
import signal
import sys
import threading
import time

import tenfold
from tenfold import OwnerDied, WorkerDied, _native, connection

# Seconds after which something is taken not to happen.
LONG = 20
# A case that lasts longer hangs.
HANG = 60
LARGE = 100_000
NEVER = 2**32 - 1
STARTED_BY_RUST = "only processes that the Rust API starts come by; Python starts its own way"
# Point → why no Python program gets there.
UNREACHABLE = {
    **dict.fromkeys(
        [
            *("launch.prepared", "launch.wanted", "child.arrived", "child.leaving"),
            *("nursery.claimed", "nursery.starting", "nursery.forked", "nursery.buried"),
        ],
        STARTED_BY_RUST,
    ),
    **dict.fromkeys(["rwlock.taken", "rwlock.released"], "multiprocessing has no such lock"),
    "queue.closed": "Queue.close() of multiprocessing closes the caller's ends, never the queue",
}
# Only who forks by itself gets there; there is a slot for a child that is not there yet.
FORKED = {"participant.claimed", "participant.birth-prepared"}
# Where those get who clear up behind a dead one.
CLEARING_UP = {"sweep.claimed", "sweep.locks-done", "sweep.done", "board.reclaimed"}
# Where only the warden gets, whose deaths have tests of their own.
WARDEN = {"warden.started", "warden.ending"}
# How often to try to get to a point where one gets only if another process is slower.
TRIES = 20


def until(true, what):
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.001)


def beside(function, *args):
    """Run the function in a thread."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


class Shared:
    """One object of each kind. Who adds to a growing one counts after it: at a death, the count is
    right or one behind."""

    def __init__(self, ctx):
        self.lock, self.rlock = ctx.Lock(), ctx.RLock()
        self.semaphore, self.bounded = ctx.Semaphore(2), ctx.BoundedSemaphore(2)
        self.event, self.condition, self.barrier = ctx.Event(), ctx.Condition(), ctx.Barrier(2)
        self.mail, self.tasks, self.simple = ctx.Queue(), ctx.JoinableQueue(), ctx.SimpleQueue()
        self.value, self.array = ctx.Value("q", 0), ctx.Array("q", 4)
        self.manager = ctx.Manager()
        self.book, self.ledger = self.manager.dict(), self.manager.list()
        self.scratch, self.pile = self.manager.dict(), self.manager.list()
        self.counts = ctx.RawArray("q", 4)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "manager"}


# What there is to do. All waiting has an end, since others may be dead.


def do_locks(ctx, shared):
    for lock in (shared.lock, shared.rlock, shared.condition):
        with lock:
            pass
    with shared.rlock, shared.rlock:
        pass
    for semaphore in (shared.semaphore, shared.bounded):
        with semaphore:
            pass
    assert shared.lock.acquire(timeout=LONG)
    waiter = beside(shared.lock.acquire, True, LONG)
    shared.lock.release()
    waiter.join()
    shared.lock.release()


def do_meetings(ctx, shared):
    waiter = beside(shared.event.wait, LONG)
    shared.event.set()
    waiter.join()
    shared.event.clear()

    def wait():
        with shared.condition:
            enlisted.set()
            shared.condition.wait(LONG)

    for notify in (shared.condition.notify, shared.condition.notify_all):
        enlisted = threading.Event()
        waiter = beside(wait)
        enlisted.wait(LONG)
        with shared.condition:
            notify()
        waiter.join()
    party = beside(shared.barrier.wait, LONG)
    shared.barrier.wait(LONG)
    party.join()


def do_queues(ctx, shared):
    for load in (7, "x" * 100, b"y" * LARGE, [shared.lock, shared.event]):
        shared.mail.put((shared.counts[0], load))
        shared.counts[0] += 1
        shared.tasks.put(load)
        shared.tasks.get(timeout=LONG)
        shared.tasks.task_done()
    own = ctx.Queue()
    own.put_many(["z" * 200] * 300)
    own.get_many(300)
    for n in range(200):
        own.put(b"z" * n * 20)
    while not own.empty():
        own.get()
    waiter = beside(own.get, True, LONG)
    time.sleep(0.002)
    own.put(1)
    waiter.join()
    own.put([ctx.Lock(), ctx.Event()])
    own.put(b"left behind" * 1000)
    own.close()
    del own
    # Armed by this look, and again in the thread.
    connection.wait([shared.simple._reader], 0)
    poller = beside(connection.wait, [shared.simple._reader], LONG)
    shared.simple.put(b"polled")
    poller.join()
    shared.simple.get()


def do_dicts(ctx, shared):
    number = shared.counts[1]
    shared.book[number] = "v" * (number % 300)
    shared.counts[1] += 1
    scratch = shared.scratch
    scratch.update({n: n for n in range(40)})
    for n in range(100):
        scratch[f"key {n}"] = n
    scratch.update({n: "longer" * n for n in range(40)})
    scratch["key 1"] = b"x" * LARGE
    scratch["key 1"] = [ctx.Lock(), ctx.Event()]
    scratch["key 1"]
    del scratch["key 1"]
    scratch.pop("key 2", None)
    with contextlib.suppress(KeyError):
        scratch.popitem()
    scratch.clear()


def do_lists(ctx, shared):
    number = shared.counts[2]
    shared.ledger.append(number)
    shared.counts[2] += 1
    pile = shared.pile
    pile.extend(range(100))
    pile.append(b"x" * LARGE)
    pile.append([ctx.Lock(), ctx.Event()])
    pile[-1]
    pile.pop()
    pile.pop()
    pile[0] = 100
    pile.insert(1, "inserted")
    pile.pop(1)
    pile.reverse()
    pile.sort()
    pile[10:20] = [1, 2, 3]
    del pile[3:30]
    pile.clear()


def do_memory(ctx, shared):
    with shared.value.get_lock():
        shared.value.value += 1
        shared.counts[3] += 1
    with shared.array.get_lock():
        shared.array[:] = [shared.array[0] + 1] * 4
    ctx.RawArray("b", 3_000_000)
    [ctx.RawArray("b", 5000) for _ in range(100)]
    ctx.Value("q", 7)


def do_processes(ctx, shared):
    child = ctx.Process(target=len, args=("",))
    child.start()
    child.join(LONG)
    assert child.exitcode == 0
    # Who reaps a killed one clears up behind it.
    child = ctx.Process(target=hold_for_ever, args=(shared, ready := ctx.Event()))
    child.start()
    ready.wait(LONG)
    child.kill()
    child.join(LONG)
    assert settle(shared.lock) <= 1


def hold_for_ever(shared, ready):
    with shared.lock, shared.semaphore:
        ready.set()
        time.sleep(1000)


def double(n):
    return n * 2


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def do_pools(ctx, shared):
    with ctx.Pool(2) as pool:
        assert pool.map(double, range(40), chunksize=5) == [n * 2 for n in range(40)]
        assert list(pool.imap(double, range(10))) == [n * 2 for n in range(10)]
        assert sorted(pool.imap_unordered(double, range(10), 3)) == [n * 2 for n in range(10)]
        assert pool.apply(double, (b"x" * LARGE,)) == b"x" * (2 * LARGE)
        try:
            pool.apply(die, (0,))
        except WorkerDied:
            pass
        else:
            raise AssertionError("a dead task has a result")
        assert pool.map(double, range(3)) == [0, 2, 4]
    pool.join()


PARTS = [
    *(do_locks, do_meetings, do_queues, do_dicts, do_lists, do_memory),
    *(do_processes, do_pools),
]


def do_all(ctx, shared, parts=None):
    for part in parts or PARTS:
        part(ctx, shared)
        gc.collect()


# Deaths, and what is checked after one.


def do_all_and_die(method, shared, point, passes):
    # What is forked from here shall live.
    os.register_at_fork(after_in_child=lambda: _native.kill_at(point, NEVER))
    _native.kill_at(point, passes)
    ctx = tenfold.get_context(method)
    do_all(ctx, shared)
    if point == "heap.grown":
        # More than anybody had before, so that it cannot be what others gave back.
        hoard = [ctx.RawArray("b", 3000) for _ in range(10_000)]
        del hoard
    if point == "heap.pages-taken":
        # Blocks that were used before have pages.
        hoard = [ctx.RawArray("b", 5_000_000) for _ in range(10)]
        del hoard
    # Not there, or not as often.
    os._exit(0)


def settle(lock):
    """How often somebody is told of the owner's death; then the lock is free."""
    told = 0
    while True:
        try:
            assert lock.acquire(timeout=LONG), f"a dead one's {lock} is kept, told {told} times"
        except OwnerDied:
            told += 1
            continue
        lock.release()
        return told


def check(shared):
    for lock in (shared.lock, shared.rlock, shared.condition, shared.value, shared.array):
        lock = lock.get_lock() if hasattr(lock, "get_lock") else lock
        told = settle(lock)
        assert told <= 1 and settle(lock) == 0, f"told {told} times of one death"
    semaphores = (shared.semaphore, shared.bounded)
    until(
        lambda: all(one.get_value() == 2 for one in semaphores),
        lambda: "a dead one's permit is lost",
    )
    shared.event.clear()
    shared.barrier.reset()
    mail, tasks = [], 0
    with contextlib.suppress(queue.Empty):
        while True:
            mail.append(shared.mail.get(timeout=0)[0])
    grown(shared, 0, mail)
    with contextlib.suppress(queue.Empty):
        while True:
            shared.tasks.get(timeout=0)
            tasks += 1
    assert tasks <= 1
    while not shared.simple.empty():
        assert shared.simple.get() == b"polled"
    grown(shared, 1, sorted(shared.book.keys()))
    assert all(value == "v" * (n % 300) for n, value in shared.book.items())
    grown(shared, 2, list(shared.ledger))
    grown(shared, 3, range(shared.value.value))
    for key, value in shared.scratch.items():
        assert key in range(40) or key.startswith("key "), key
        assert not isinstance(value, str) or value == "longer" * key
    assert all(isinstance(item, (int, str, bytes, list)) for item in shared.pile)
    shared.scratch.clear()
    shared.pile.clear()


def grown(shared, number, found):
    """What was counted is there, in order, and no more than one that was not yet counted."""
    count = shared.counts[number]
    assert count <= len(found) <= count + 1, (number, count, len(found))
    assert list(found) == list(range(len(found)))
    shared.counts[number] = len(found)


def one_death(ctx, method, point, passes):
    """Whether a child got to the point."""
    shared = Shared(ctx)
    child = ctx.Process(target=do_all_and_die, args=(method, shared, point, passes))
    child.start()
    child.join(HANG)
    assert child.exitcode in (0, -signal.SIGKILL), f"the child ended with {child.exitcode}"
    check(shared)
    if child.exitcode:
        # Once more by one who lives. The mail was fetched: it counts anew.
        shared.counts[0] = 0
        do_all(ctx, shared, PARTS[:-2])
        check(shared)
    return bool(child.exitcode)


def arm(point, passes):
    os.register_at_fork(after_in_child=lambda: _native.kill_at(point, NEVER))
    _native.kill_at(point, passes)


def one_worker(ctx, method, point, passes):
    """Whether a pool's worker got to the point."""
    with ctx.Pool(1) as pool:
        workers = list(pool._pool)
        with contextlib.suppress(WorkerDied):
            pool.apply(arm, (point, passes))
        for chunksize in (1, 5):
            done = pool.map_async(double, range(40), chunksize=chunksize, retries=1)
            assert done.get(LONG) == [n * 2 for n in range(40)]
        done = pool.imap(double, range(20), retries=1)
        assert list(done) == [n * 2 for n in range(20)]
        # Time to fall asleep, and to be called.
        time.sleep(0.02)
        big = pool.apply_async(double, (b"x" * LARGE,), retries=1).get(LONG)
        assert big == b"x" * (2 * LARGE)
        pool.close()
        pool.join()
    return any(worker.exitcode == -signal.SIGKILL for worker in workers)


def live():
    gc.collect()
    return _native.heap_stats()["bytes_live"]


def watched(case, ctx, method, point, passes):
    """The case, which must not hang and must leave nothing in the heap."""
    before = live()
    faulthandler.dump_traceback_later(HANG, exit=True)
    died = case(ctx, method, point, passes)

    def nothing_left():
        if live() <= before:
            return True
        if point in FORKED:
            # The slot of a child that never came is swept two seconds later, by whoever looks.
            look = ctx.Process(target=len, args=("",))
            look.start()
            look.join(LONG)
        return False

    until(nothing_left, lambda: f"{live() - before} bytes are left in the heap")
    faulthandler.cancel_dump_traceback_later()
    return died


def main(method, passes):
    ctx = tenfold.get_context(method)
    deaths = dict.fromkeys(_native.kill_points(), 0)
    # What is made once and stays.
    for case in (one_death, one_worker):
        for number in (0, 0, NEVER):
            case(ctx, method, next(iter(deaths)), number)
    for point in deaths:
        for case in (one_death, one_worker):
            for number in passes:
                try:
                    died = watched(case, ctx, method, point, number)
                except BaseException as error:
                    error.add_note(f"{case.__name__} {point} {number} {method}")
                    raise
                deaths[point] += died
                if not died:
                    break
    skipped = UNREACHABLE.keys() | WARDEN | (FORKED if method != "fork" else set())
    for point in deaths.keys() - skipped:
        for _ in range(TRIES):
            if deaths[point]:
                break
            deaths[point] += watched(one_death, ctx, method, point, passes[0])
            deaths[point] += watched(one_worker, ctx, method, point, passes[0])
    print(json.dumps(deaths))


if __name__ == "__main__":
    main(sys.argv[1], [int(word) for word in sys.argv[2:]])
