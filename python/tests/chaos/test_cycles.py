"""Everything made and dropped again and again: descriptors, threads, memory and the heap are where
they were.
"""

import pytest

pytestmark = pytest.mark.fault(15)

CYCLES = """
import gc, os, sys, threading, time, tenfold

def square(x):
    return x * x

def put(queue, lock):
    with lock:
        queue.put("x" * 1000)

def holdings():
    gc.collect()
    heap = tenfold.heap_stats()
    with open("/proc/self/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    # malloc keeps some of what was freed, and of the heap's pages others are used now.
    return {
        "descriptors": (len(os.listdir("/proc/self/fd")), 0),
        "threads": (threading.active_count(), 0),
        "resident": (resident, 8192),
        "bytes": (heap["bytes_live"], 64 << 10),
    }

def again_and_again(name, times, cycle):
    for _ in range(3):
        cycle()
    gc.collect()
    before = holdings()
    for _ in range(times):
        cycle()
    end = time.monotonic() + 20
    # What processes held that are gone is given back by whoever sweeps them, in a moment.
    while True:
        now = holdings()
        more = {k: (before[k][0], v) for k, (v, slack) in now.items() if v > before[k][0] + slack}
        if not more:
            return
        assert time.monotonic() < end, (name, more)
        time.sleep(0.01)
"""

OBJECTS = """
def used(thing, *calls):
    for call in calls:
        call(thing)

def queue(q):
    q.put("short")
    q.put("long" * 1000)
    assert q.get(timeout=60) == "short"

def joinable(q):
    q.put(1)
    q.get(timeout=60)
    q.task_done()
    q.join()

def pipe(context):
    one, other = context.Pipe()
    one.send("there")
    assert other.recv() == "there"
    one.close()
    other.close()

def condition(c):
    with c:
        c.notify_all()

def locked(lock):
    with lock:
        pass

def add(value):
    with value.get_lock():
        value.value += 1

def managed(manager):
    inner = manager.list([1, 2, 3])
    outer = manager.dict(inner=inner, text="x" * 1000)
    assert list(outer["inner"]) == [1, 2, 3]

if __name__ == "__main__":
    context = tenfold.get_context(METHOD)
    for name, cycle in {
        "Lock": lambda: locked(context.Lock()),
        "RLock": lambda: locked(context.RLock()),
        "Semaphore": lambda: locked(context.Semaphore(2)),
        "BoundedSemaphore": lambda: locked(context.BoundedSemaphore(2)),
        "Condition": lambda: condition(context.Condition()),
        "Event": lambda: context.Event().set(),
        "Barrier": lambda: context.Barrier(1).wait(),
        "Queue": lambda: queue(context.Queue()),
        "JoinableQueue": lambda: joinable(context.JoinableQueue()),
        "SimpleQueue": lambda: used(context.SimpleQueue(), lambda q: q.put(1), lambda q: q.get()),
        "Value": lambda: add(context.Value("i", 0)),
        "RawValue": lambda: context.RawValue("d", 1.5),
        "Array": lambda: locked(context.Array("i", 1000).get_lock()),
        "RawArray": lambda: context.RawArray("i", 1000),
        "Pipe": lambda: pipe(context),
    }.items():
        again_and_again(name, TIMES, cycle)
    with context.Manager() as manager:
        again_and_again("Manager's dict and list", TIMES, lambda: managed(manager))
    with context.Pool(1) as pool:
        again_and_again("a pool's result", TIMES, lambda: pool.apply(square, (3,)))
        again_and_again("a result not fetched", TIMES, lambda: pool.apply_async(square, (3,)))
        again_and_again("a map's results", TIMES // 10, lambda: pool.map(square, range(50)))
"""

PROCESSES = """
if __name__ == "__main__":
    context = tenfold.get_context(METHOD)
    queue, lock = context.Queue(), context.Lock()

    def process():
        child = context.Process(target=put, args=(queue, lock))
        child.start()
        queue.get(timeout=60)
        child.join()
        assert child.exitcode == 0

    def pool():
        with context.Pool(2) as pool:
            assert pool.map(square, range(10)) == [x * x for x in range(10)]
        pool.join()

    again_and_again("processes", TIMES, process)
    again_and_again("pools", max(TIMES // 10, 2), pool)
"""


def program(text, method, times):
    return CYCLES + text.replace("METHOD", repr(method)).replace("TIMES", str(times))


def test_ten_thousand_objects_of_each_kind_leave_nothing(python, method):
    python(program(OBJECTS, method, 10_000))


def test_processes_and_pools_leave_nothing(python, method):
    python(program(PROCESSES, method, 10))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_hundred_processes_and_fifty_pools_leave_nothing(python, method):
    python(program(PROCESSES, method, 500), limit=500)
