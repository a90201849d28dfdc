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


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


@settings(max_examples=300, deadline=None)
@given(st.recursive(plain, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner)))
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
    for put in (lambda: q.put(3, False), lambda: q.put_nowait(3), lambda: q.put(3, timeout=0.05), lambda: q.put(3, 0)):
        with pytest.raises(queue.Full):
            put()
    assert [q.get(), q.get(0), q.get_nowait()] == [0, 1, 2]
    for get in (lambda: q.get(False), q.get_nowait, lambda: q.get(timeout=0.05), lambda: q.get(True, -1)):
        with pytest.raises(queue.Empty):
            get()


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
    producers = [context.Process(target=produce, args=(q, n * 10_000, 3000, done)) for n in range(3)]
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
    assert sorted(sum(lists, [])) == [n * 10_000 + i for n in range(3) for i in range(3000)]
    for got in lists:
        for n in range(3):
            mine = [number for number in got if number // 10_000 == n]
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
        for use in (lambda q: q.put(1), lambda q: q.get(), lambda q: q.put_many([1]), lambda q: q.get_many()):
            with pytest.raises(ValueError, match="is closed"):
                use(q)
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


# Signals


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("wait", ["get", "put", "get_many", "put_many", "join", "recv", "poll"])
def test_a_signal_handler_that_raises_ends_any_wait_and_takes_nothing(wait):
    q, full = tenfold.JoinableQueue(), tenfold.Queue(1)
    full.put(0)
    if wait == "join":
        q.put(0)
    waits = {
        "get": q.get,
        "put": lambda: full.put(1),
        "get_many": q.get_many,
        "put_many": lambda: full.put_many([1]),
        "join": q.join,
        "recv": q._reader.recv,
        "poll": lambda: q._reader.poll(None),
    }

    def handler(*_):
        if wait != "join":
            q.put("while the handler runs")
        if not full.empty():
            full.get()
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            waits[wait]()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert full.empty()
    if wait != "join":
        assert q.get_nowait() == "while the handler runs"


def test_a_signal_handler_that_returns_does_not_end_a_wait():
    q, ran = tenfold.Queue(), []
    before = signal.signal(signal.SIGALRM, lambda *_: (ran.append(1), len(ran) == 3 and q.put("at last")))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        assert q.get() == "at last"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) >= 3


# Many at once


def test_many_at_once():
    q = tenfold.Queue()
    q.put_many(iter(range(1000)))
    assert q.qsize() == 1000
    assert q.get_many(10) == list(range(10))
    assert q.get_many() == list(range(10, 1000))
    with pytest.raises(queue.Empty):
        q.get_many(block=False)
    with pytest.raises(queue.Empty):
        q.get_many(timeout=0.05)
    with pytest.raises(ValueError):
        q.get_many(0)
    q.put_many([])
    q.put_many([b"x" * 100_000, [1], "a"])
    assert q.get_many() == [b"x" * 100_000, [1], "a"]


def test_put_many_says_how_many_it_put():
    q = tenfold.Queue(5)
    q.put(0)
    with pytest.raises(queue.Full) as full:
        q.put_many(range(1, 10), timeout=0.05)
    assert full.value.put == 4
    with pytest.raises(queue.Full) as full:
        q.put_many([1], False)
    assert full.value.put == 0
    assert q.get_many() == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError) as error:
        q.put_many([1, 2, Refuses(), 3])
    assert error.value.put == 2
    assert q.get_many() == [1, 2]
    with pytest.raises(TypeError):
        q.put_many(3)


def test_get_many_loses_only_what_does_not_unpickle():
    q = tenfold.Queue()
    q.put_many([1, Explodes(), 2, Explodes(), 3])
    with pytest.raises(ZeroDivisionError) as error:
        q.get_many()
    assert error.value.received == [1, 2, 3]
    assert q.empty()


def drain(q, total, results):
    got = []
    while (taken := q.get_many(100))[-1] is not None:
        got += taken
    results.put(got + taken[:-1])


def test_many_at_once_through_a_small_queue():
    context = tenfold.get_context("fork")
    q, results = context.Queue(7), context.Queue()
    child = context.Process(target=drain, args=(q, 10_000, results))
    child.start()
    q.put_many([*range(10_000), None])
    assert results.get() == list(range(10_000))
    child.join()


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
    lock, event, inner, simple = context.Lock(), context.Event(), context.Queue(), context.SimpleQueue()
    with lock:
        q.put((lock, event, inner, simple))
        assert not event.wait(0.1)
    assert event.wait(30)
    assert inner.get() == "from inside" and simple.get() == "simply"
    child.join()


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


# Subclasses that programs make


class Counting(tenfold.queues.Queue):
    """The recipe for platforms without qsize."""

    def __init__(self, maxsize=0, *, ctx):
        super().__init__(maxsize, ctx=ctx)
        self.count = ctx.Value("i", 0)

    def __getstate__(self):
        return super().__getstate__() + (self.count,)

    def __setstate__(self, state):
        super().__setstate__(state[:-1])
        self.count = state[-1]

    def put(self, *args, **kwargs):
        super().put(*args, **kwargs)
        with self.count.get_lock():
            self.count.value += 1


def fill(q):
    q.put("put")
    q.put_nowait("short")


def test_a_subclass_that_counts(method):
    context = tenfold.get_context(method)
    q = Counting(ctx=context)
    child = context.Process(target=fill, args=(q,))
    child.start()
    assert q.get() == "put" and q.get() == "short"
    child.join()
    assert q.count.value == 2


class Fed(tenfold.queues.Queue):
    """As in joblib's loky: a feeder thread that pickles in its own way, started by overridden code."""

    def _start_thread(self):
        self.started = True
        super()._start_thread()


def test_a_subclass_with_a_feeder_thread_of_its_own_is_the_standard_librarys(method):
    context = tenfold.get_context(method)
    there, back = Fed(5, ctx=context), Fed(ctx=context)
    child = context.Process(target=echo, args=(there, back))
    child.start()
    there.put([1])
    there.put_nowait("stop")
    assert back.get(timeout=30) == [1]
    assert there.started and there._thread is not None
    child.join()
    for q in (there, back):
        q.close()
        q.join_thread()


# Large messages


def test_a_gibibyte_passes():
    if _native_memory() < 6 << 30:
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


def _native_memory():
    with open("/proc/meminfo") as info:
        return next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
