"""Queues: what goes in comes out, in all kinds of processes, and counts are exact."""

import gc
import multiprocessing
import pickle
import queue
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tenfold
import tenfold.queues
from tenfold import _native

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)


class Refuses:
    """Cannot be pickled."""

    def __reduce__(self):
        raise ZeroDivisionError("no pickle of me")


class Explodes:
    """Cannot be unpickled."""

    def __reduce__(self):
        return explode, ()


def explode():
    raise ZeroDivisionError("no unpickling of me")


def echo(source, target):
    for obj in iter(source.get, "stop"):
        target.put(obj)


OBJECTS = [
    None,
    True,
    -1,
    2**63 - 1,
    2**63,
    -(10**40),
    1.5,
    float("inf"),
    "",
    "text",
    "\udc80 no UTF-8",
    "é" * 10_000,
    b"",
    b"bytes" * 10,
    b"x" * 100_000,
    (),
    (1, 2),
    (1, "a", None, True, 2.5, b"b"),
    ("x" * 5000,),
    tuple(range(100)),
    ((1, 2), 3),
    [1, [2]],
    {"a": {1, 2}},
    bytearray(b"mutable"),
    Point(1, [2, 3]),
    range(5),
    1 + 2j,
    print,
    Point,
]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_pass_through_another_process(method, kind):
    context = tenfold.get_context(method)
    there, back = getattr(context, kind)(), getattr(context, kind)()
    child = context.Process(target=echo, args=(there, back))
    child.start()
    for obj in [*OBJECTS, "stop"]:
        there.put(obj)
    for obj in OBJECTS:
        got = back.get()
        assert type(got) is type(obj)
        assert got == obj
    child.join()
    assert child.exitcode == 0
    assert there.empty() and back.empty()


numbers = st.booleans() | st.integers() | st.floats(allow_nan=False)
plain = st.none() | numbers | st.text() | st.binary()


def containers(inner):
    lists = st.lists(inner)
    return lists | lists.map(tuple) | st.dictionaries(st.text(), inner)


@settings(max_examples=300, deadline=None)
@given(st.recursive(plain, containers))
def test_what_comes_out_is_what_went_in(obj):
    q = tenfold.SimpleQueue()
    q.put(obj)
    got = q.get()
    assert type(got) is type(obj) and got == obj


def test_subclasses_of_plain_types_keep_their_class():
    q = tenfold.Queue()
    for obj in (signal.SIGINT, np.float64(1.5), Counter("aab"), Text("t")):
        q.put(obj)
        got = q.get()
        assert type(got) is type(obj) and got == obj


class Text(str):
    pass


def test_classes_are_those_of_the_standard_library_too():
    q = tenfold.JoinableQueue()
    assert isinstance(q, multiprocessing.queues.JoinableQueue)
    assert isinstance(q, tenfold.queues.Queue)
    assert type(q).__module__ == "tenfold.queues"
    assert isinstance(tenfold.SimpleQueue(), multiprocessing.queues.SimpleQueue)
    assert not hasattr(tenfold.Queue(), "task_done")
    assert tenfold.queues.Queue[int] and tenfold.queues.SimpleQueue[int]
    assert tenfold.queues.Full is queue.Full and tenfold.queues.Empty is queue.Empty


# Counts


def test_a_bounded_queue_is_full_and_empty_exactly():
    q = tenfold.Queue(3)
    for size in range(3):
        assert (q.qsize(), q.empty(), q.full()) == (size, size == 0, False)
        q.put(size)
    assert (q.qsize(), q.empty(), q.full()) == (3, False, True)
    for arguments in ((3, False), (3, 0), (3, True, 0.05), (3, 1, -1)):
        with pytest.raises(queue.Full):
            q.put(*arguments)
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    assert [q.get(), q.get(0), q.get_nowait()] == [0, 1, 2]
    for arguments in ((False,), (0,), (True, 0.05), (1, -1)):
        with pytest.raises(queue.Empty):
            q.get(*arguments)
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_timeouts_last_as_long_as_they_say():
    q = tenfold.Queue(1)
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.3)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.3)
    assert time.monotonic() - began >= 0.6
    for timeout in ("soon", [], float("nan")):
        with pytest.raises((TypeError, ValueError)):
            q.put(2, timeout=timeout)


def put_and_get(q, count):
    for number in range(count):
        q.put(number)
        q.get()


@pytest.mark.parametrize("maxsize", [0, 2])
def test_sizes_are_exact_after_any_number_of_processes(maxsize):
    context = tenfold.get_context("fork")
    q = context.Queue(maxsize)
    children = [context.Process(target=put_and_get, args=(q, 2000)) for _ in range(3)]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        assert 0 <= q.qsize() <= (maxsize or 3)
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert q.qsize() == 0 and q.empty() and not q.full()


def produce(q, first, count, done):
    q.put_many(range(first, first + count))
    done.put(None)


def consume(q, results):
    got = list(iter(q.get, None))
    results.put(got)


def test_nothing_is_lost_or_doubled_and_each_producer_keeps_its_order(method):
    context = tenfold.get_context(method)
    q, done, results = context.Queue(50), context.Queue(), context.SimpleQueue()
    firsts = (0, 10_000, 20_000)
    producers = [context.Process(target=produce, args=(q, n, 3000, done)) for n in firsts]
    consumers = [context.Process(target=consume, args=(q, results)) for _ in range(3)]
    for child in producers + consumers:
        child.start()
    for _ in producers:
        done.get()
    for _ in consumers:
        q.put(None)
    lists = [results.get() for _ in consumers]
    for child in producers + consumers:
        child.join()
    assert sorted(sum(lists, [])) == [n + i for n in firsts for i in range(3000)]
    for got in lists:
        for n in firsts:
            mine = [number for number in got if n <= number < n + 3000]
            assert mine == sorted(mine)


def test_threads_share_a_queue():
    q, results = tenfold.Queue(10), []
    getters = [threading.Thread(target=lambda: results.extend(iter(q.get, None))) for _ in range(3)]
    putters = [threading.Thread(target=lambda: [q.put(n) for n in range(1000)]) for _ in range(3)]
    for thread in getters + putters:
        thread.start()
    for thread in putters:
        thread.join()
    for _ in getters:
        q.put(None)
    for thread in getters:
        thread.join()
    assert sorted(results) == sorted(list(range(1000)) * 3)


# Errors


def test_what_cannot_be_pickled_is_an_error_of_put():
    for q in (tenfold.Queue(1), tenfold.SimpleQueue()):
        with pytest.raises(ZeroDivisionError, match="no pickle"):
            q.put(Refuses())
        assert q.empty()
        q.put(1)
        assert q.get() == 1


def test_what_does_not_unpickle_is_gone_and_the_queue_lives():
    q = tenfold.Queue()
    q.put(Explodes())
    q.put(1)
    with pytest.raises(ZeroDivisionError, match="no unpickling"):
        q.get()
    assert q.get() == 1


def test_the_hook_of_a_subclass_is_called_instead():
    seen = []

    class Hooked(tenfold.queues.Queue):
        def _on_queue_feeder_error(self, error, obj):
            seen.append((self, type(error), type(obj)))

    q = Hooked(ctx=tenfold.get_context())
    q.put(Refuses())
    q.put_many([1, Refuses(), 2])
    assert seen == [(q, ZeroDivisionError, Refuses)] * 2
    assert q.get_many() == [1, 2]


def test_a_closed_queue_says_so():
    for q in (tenfold.Queue(), tenfold.JoinableQueue()):
        q.put(1)
        q.close()
        q.close()
        q.join_thread()
        q.cancel_join_thread()
        for method, *arguments in (("put", 1), ("get",), ("put_many", [1]), ("get_many",)):
            with pytest.raises(ValueError, match="is closed"):
                getattr(q, method)(*arguments)
        with pytest.raises(OSError, match="is closed"):
            q.empty()
    q = tenfold.SimpleQueue()
    q.close()
    for use in (q.empty, q.get, lambda: q.put(1), q._reader.fileno, q._reader.poll):
        with pytest.raises(OSError, match="is closed"):
            use()
    assert q._reader.closed and q._writer.closed


def test_a_queue_that_was_not_made_says_so():
    class Lazy(tenfold.queues.Queue):
        def __init__(self):
            pass

    for use in (lambda q: q.put(1), lambda q: q.get(), lambda q: q.qsize()):
        with pytest.raises(RuntimeError, match="__init__"):
            use(Lazy())


def test_a_bare_pickle_is_refused():
    for q in (tenfold.Queue(), tenfold.SimpleQueue()):
        with pytest.raises(RuntimeError, match="inheritance"):
            pickle.dumps(q)


# Tasks


def work(q):
    for _ in iter(q.get, None):
        time.sleep(0.01)
        q.task_done()
    q.task_done()


def test_join_waits_for_all_tasks(method):
    context = tenfold.get_context(method)
    q = context.JoinableQueue()
    q.join()
    children = [context.Process(target=work, args=(q,)) for _ in range(2)]
    for child in children:
        child.start()
    for number in range(20):
        q.put(number)
    q.join()
    assert q.empty()
    for _ in children:
        q.put(None)
    q.join()
    for child in children:
        child.join()
    with pytest.raises(ValueError, match="too many"):
        q.task_done()


# Handles


def use_what_was_sent(q):
    lock, event, inner, simple = q.get()
    with lock:
        inner.put("from inside")
        simple.put("simply")
        event.set()


def test_handles_travel_to_a_process_that_runs_already(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=use_what_was_sent, args=(q,))
    child.start()
    lock, event = context.Lock(), context.Event()
    inner, simple = context.Queue(), context.SimpleQueue()
    with lock:
        q.put((lock, event, inner, simple))
        assert not event.wait(0.1)
    assert event.wait(60)
    assert inner.get() == "from inside" and simple.get() == "simply"
    child.join()


def set_by_name(q):
    things = q.get()
    things["d"]["seen"] = True


def test_a_managers_dict_travels_to_a_process_that_runs_already(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=set_by_name, args=(q,))
    child.start()
    with context.Manager() as manager:
        d = manager.dict()
        q.put({"d": d})
        child.join()
        assert d["seen"] is True


def test_a_queue_in_a_queue_outlives_its_sender():
    q = tenfold.Queue()
    inner = tenfold.Queue(3)
    inner.put([1, 2])
    q.put({"inner": inner})
    del inner
    gc.collect()
    inner = q.get()["inner"]
    assert inner.get() == [1, 2] and inner._maxsize == 3


def live():
    gc.collect()
    return _native.heap_stats()["bytes_live"]


def test_the_memory_of_a_dropped_queue_comes_back():
    before = live()
    for _ in range(3):
        q = tenfold.Queue()
        q.put_many(b"x" * 100_000 for _ in range(100))
        q.put(tenfold.Queue())
        reader = q._reader
        reader.fileno()
        assert live() > before + 10_000_000
        del q, reader
    assert live() <= before + 10_000


def test_the_memory_of_messages_comes_back():
    q = tenfold.Queue()
    q.put(np.zeros(1000))
    q.get()
    before = live()
    for _ in range(50):
        q.put([b"y" * 200_000])
        q.put(np.zeros(100_000))
        q.put(tenfold.Queue())
        for _ in range(3):
            q.get()
    assert live() <= before + 100_000


# Large messages


def test_a_gibibyte_passes():
    if available_memory() < 6 << 30:
        pytest.skip("not enough memory")
    context = tenfold.get_context("fork")
    there, back = context.Queue(), context.Queue()
    child = context.Process(target=measure, args=(there, back))
    child.start()
    there.put(b"\xa5" * (1 << 30))
    there.put(["x" * (1 << 28)])
    assert back.get() == (1 << 30, b"\xa5", b"\xa5")
    assert back.get() == (1 << 28, "x", "x")
    child.join()


def measure(source, target):
    data = source.get()
    target.put((len(data), data[:1], data[-1:]))
    del data
    [text] = source.get()
    target.put((len(text), text[0], text[-1]))


def available_memory():
    with open("/proc/meminfo") as info:
        return next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
