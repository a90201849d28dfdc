#!/usr/bin/env python3
"""Everything at once under random SIGKILLs, checked against a model.

usage: soak.py [--seconds N]

It goes in rounds of some seconds, each with the next start method and a model of its own:

- a producer puts (itself, 0), (itself, 1), … and notes after each put how far it is;
- a consumer counts each producer's messages in shared memory; so many must be there as were noted,
  less one for each killed consumer at most, and never more than one that was put but not noted;
- lockers change two numbers under a lock, and nobody else does meanwhile; whoever finds them
  different after a death makes them equal; others add to a Value under its own lock;
- writers of a Manager's dict and list read back what must be whole;
- waiters sleep on an event and on a condition, beside others who set and notify;
- a pool squares numbers: with retries all come back, without them a task may fail with
  `WorkerDied`, and not more of them than workers were killed.

The exit status is 1 if the model is violated, or if a round hangs.
"""

import argparse
import contextlib
import faulthandler
import gc
import os
import random
import signal
import sys
import time

import tenfold
from tenfold import OwnerDied, WorkerDied

METHODS = ["fork", "forkserver", "spawn"]
# Producers that a round can have, replacements included; the kills of a round are far fewer.
PRODUCERS = 1000
# Seconds of a round, and after which a round that should have ended is taken to hang.
ROUND = 10
HANG = 40
TASKS = 60


class Violated(Exception):
    """The model and what happened differ."""


def check(right, text):
    if not right:
        raise Violated(text)


def produce(me, queue, notes):
    n = 0
    while True:
        # Short ones travel inside the queue, long ones in blocks of their own.
        queue.put((me, n, b"x" * (n % 7 * 100)))
        n += 1
        notes[me] = n
        time.sleep(0.0005)


def consume(slot, queue, seen):
    """Note each message in this consumer's own row of the table."""
    while True:
        me, n, load = queue.get()
        if len(load) != n % 7 * 100:
            os._exit(3)
        # A consumer killed before this store had the message in its hands.
        seen[slot * PRODUCERS + me] += 1


def hold(_, lock, pair, died):
    while True:
        try:
            lock.acquire()
        except OwnerDied:
            # The lock is free after this: whoever has it next finds what the dead one left.
            died[0] += 1
            lock.acquire(recover=True)
        turn = pair[0] = max(pair[0], pair[1])
        pair[1] = turn
        pair[0] = turn + 1
        if pair[1] != turn:
            os._exit(3)
        pair[1] = turn + 1
        if pair[0] != turn + 1:
            os._exit(3)
        lock.release()


def add(_, value):
    while True:
        try:
            with value.get_lock():
                value.value += 1
        except OwnerDied:
            continue


def scribble(me, names, items):
    dice = random.Random(me)
    while True:
        key = f"key {dice.randrange(50)}"
        names[key] = [me] * dice.randrange(300)
        value = names.get(key)
        # Each value is one number over and over, so a torn one is seen.
        if value and len(set(value)) != 1:
            os._exit(3)
        items.append(me)
        if len(items) > 200:
            with contextlib.suppress(IndexError):
                items.pop(0)


def wait(_, event, condition):
    while True:
        try:
            event.wait(0.05)
            with condition:
                condition.wait(0.05)
        except OwnerDied:
            continue


def ring(_, event, condition):
    while True:
        try:
            event.set()
            with condition:
                condition.notify_all()
            event.clear()
        except OwnerDied:
            continue
        time.sleep(0.001)


def come(ready):
    ready[os.getpid()] = True


def square(n):
    time.sleep(0.0005)
    return n * n


class Crew:
    """Processes of one kind, of which one is killed now and then and replaced."""

    def __init__(self, ctx, target, size, *args):
        self.ctx, self.target, self.args = ctx, target, args
        self.started = self.killed = 0
        self.members = [self.start() for _ in range(size)]

    def start(self):
        process = self.ctx.Process(
            target=self.target, args=(self.started, *self.args), daemon=True
        )
        self.started += 1
        process.start()
        return process

    def end_one(self, member):
        member.kill()
        member.join(HANG)
        code = member.exitcode
        check(code == -signal.SIGKILL, f"{self.target.__name__} ended with {code}, not killed")

    def kill_one(self, dice):
        place = dice.randrange(len(self.members))
        self.end_one(self.members[place])
        self.killed += 1
        self.members[place] = self.start()

    def end(self):
        for member in self.members:
            self.end_one(member)


def fds():
    return len(os.listdir("/proc/self/fd"))


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def until(condition, what):
    patience = time.monotonic() + HANG / 2
    while not condition():
        check(time.monotonic() < patience, what())
        time.sleep(0.02)


def run_pool(pool, tasks, total, retries):
    """Start a map and return a function that checks its results."""
    if retries:
        result = pool.map_async(square, tasks, chunksize=5, retries=100)

        def done():
            check(result.get(HANG) == [n * n for n in tasks], "a map with retries is wrong")
            total["tasks done"] += len(tasks)
    else:
        results = [(n, pool.apply_async(square, (n,))) for n in tasks]

        def done():
            for n, one in results:
                try:
                    check(one.get(HANG) == n * n, "a task's result is wrong")
                    total["tasks done"] += 1
                except WorkerDied:
                    total["tasks killed"] += 1

    return done


def one_round(method, seconds, dice, total):
    ctx = tenfold.get_context(method)
    queue = ctx.Queue(1000)
    notes = ctx.RawArray("q", PRODUCERS)
    # A row for each consumer that there can be: each writes its own only.
    consumers_limit = 400
    seen = ctx.RawArray("q", PRODUCERS * consumers_limit)
    lock, pair, died = ctx.Lock(), ctx.RawArray("q", 2), ctx.RawArray("q", 1)
    value, event, condition = ctx.Value("q", 0), ctx.Event(), ctx.Condition()
    with ctx.Manager() as manager, ctx.Pool(2, come, (ready := manager.dict(),)) as pool:
        producers = Crew(ctx, produce, 2, queue, notes)
        consumers = Crew(ctx, consume, 2, queue, seen)
        lockers = Crew(ctx, hold, 2, lock, pair, died)
        others = [
            Crew(ctx, add, 1, value),
            Crew(ctx, scribble, 2, manager.dict(), manager.list()),
            Crew(ctx, wait, 1, event, condition),
            Crew(ctx, ring, 1, event, condition),
        ]
        crews = [producers, consumers, lockers, *others]
        killed_workers = 0
        killed_tasks = total["tasks killed"]
        end = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < end and consumers.started < consumers_limit - 2:
            turn += 1
            done = run_pool(pool, range(turn * TASKS, turn * TASKS + TASKS), total, turn % 2)
            for _ in range(2):
                time.sleep(dice.random() * 0.05)
                crew = dice.choice([*crews, None])
                if crew is None:
                    # Not those that are starting: three such deaths in a row make a broken pool.
                    workers = [worker for worker in pool._pool if worker.pid in ready]
                    if not workers:
                        continue
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(dice.choice(workers).pid, signal.SIGKILL)
                    killed_workers += 1
                else:
                    crew.kill_one(dice)
                total["kills"] += 1
            done()
        producers.end()
        until(queue.empty, lambda: f"{queue.qsize()} messages are never fetched")
        # The last consumers may have one in their hands each: those count as killed in them.
        consumers.end()
        for crew in [lockers, *others]:
            crew.end()
    pool.join()
    lost_tasks = max(0, total["tasks killed"] - killed_tasks - killed_workers)
    total["tasks lost beyond"] += lost_tasks
    check(not lost_tasks, f"{lost_tasks} tasks died beyond the {killed_workers} killed workers'")
    columns = [sum(seen[me::PRODUCERS]) for me in range(producers.started)]
    lost = 0
    for me, arrived in enumerate(columns):
        # A producer killed between its put and its note has put one more.
        check(arrived <= notes[me] + 1, f"{arrived} of producer {me} seen, {notes[me]} put")
        lost += max(0, notes[me] - arrived)
    total["messages put"] += sum(notes)
    total["messages seen"] += sum(columns)
    total["lost in killed hands"] += lost
    # Two consumers more were killed at the end.
    beyond = max(0, lost - consumers.started)
    total["messages lost beyond"] += beyond
    check(not beyond, f"{lost} messages lost, {consumers.started} consumers killed")
    check(died[0] <= lockers.started, f"OwnerDied {died[0]} times, {lockers.started} killed")
    total["owners died"] += died[0]
    queue.close()


def say(text):
    print(f"python soak, {text}", flush=True)


def soak(seconds):
    dice = random.Random(2026)
    total = dict.fromkeys(
        ["kills", "tasks done", "tasks killed", "tasks lost beyond", "messages put"]
        + ["messages seen", "lost in killed hands", "messages lost beyond", "owners died"],
        0,
    )
    # What is made once a family (nursery, warden, fork server), and kept, is there before.
    for method in METHODS:
        faulthandler.dump_traceback_later(HANG, exit=True)
        one_round(method, 0, dice, dict(total))
    # So is the room for the names of more objects than a process has at first.
    locks = [tenfold.Lock() for _ in range(200)]
    del locks
    gc.collect()
    before = tenfold.heap_stats()["bytes_live"], fds(), resident()
    say("start: {} bytes on the heap, {} descriptors, {} KiB resident".format(*before))
    start = time.monotonic()
    turn = 0
    while (left := start + seconds - time.monotonic()) > 0:
        method = METHODS[turn % len(METHODS)]
        turn += 1
        # Whatever hangs, this ends it, with a traceback and status 1.
        faulthandler.dump_traceback_later(ROUND + HANG, exit=True)
        one_round(method, min(left, ROUND), dice, total)
        figures = ", ".join(f"{name} {number}" for name, number in total.items())
        say(f"{time.monotonic() - start:.0f} s, {method}: {figures}")
    # What cycles of Python objects hold goes now, the last of the swept in the warden's own time.
    gc.collect()
    until(
        lambda: tenfold.heap_stats()["bytes_live"] <= before[0],
        lambda: f"heap: {before[0]} bytes at the start, {tenfold.heap_stats()} at the end",
    )
    after = tenfold.heap_stats()["bytes_live"], fds(), resident()
    faulthandler.cancel_dump_traceback_later()
    say("end: {} bytes on the heap, {} descriptors, {} KiB resident".format(*after))
    check(after[1] <= before[1], f"descriptors: {before[1]} at the start, {after[1]} at the end")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    try:
        soak(options.seconds)
    except Violated as error:
        say(f"VIOLATED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
