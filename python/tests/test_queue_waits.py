"""Waits that are interrupted, and many messages with one call."""

import queue
import signal

import pytest
from test_queues import Explodes, Refuses

import tenfold

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

    def handler(*_):
        ran.append(1)
        if len(ran) == 3:
            q.put("at last")

    before = signal.signal(signal.SIGALRM, handler)
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
