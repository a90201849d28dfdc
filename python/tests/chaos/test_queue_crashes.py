"""Queues when processes are killed, exit early, or poll."""

import asyncio
import os
import queue
import select
import signal
import threading
import time
from multiprocessing.connection import wait

import pytest

import tenfold

fork = tenfold.get_context("fork")


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


# Kills


def put_for_ever(q, obj):
    while True:
        q.put(obj)


def put_one_and_say(q, obj, say):
    say.put("ready")
    q.put(obj)


@pytest.mark.fault(9)
def test_a_producer_killed_in_the_middle_of_fifty_megabytes_leaves_whole_messages(ctx):
    data = os.urandom(50 << 20)
    for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.04):
        q, say = ctx.Queue(), ctx.Queue()
        producer = ctx.Process(target=put_one_and_say, args=(q, data, say))
        producer.start()
        say.get()
        time.sleep(delay)
        producer.kill()
        producer.join()
        assert q.qsize() in (0, 1)
        q.put("next")
        for _ in range(q.qsize() - 1):
            assert q.get() == data
        assert q.get(timeout=30) == "next"


@pytest.mark.fault(9)
@pytest.mark.parametrize("obj", [7, ("a", 1), b"z" * 10_000, [1, 2]], ids=type)
def test_killed_producers_leave_an_exact_queue(ctx, obj):
    q = ctx.Queue(100)
    for round in range(0, 10, 1 if ctx is fork else 3):
        producers = [ctx.Process(target=put_for_ever, args=(q, obj)) for _ in range(2)]
        for producer in producers:
            producer.start()
        taken = 0
        deadline = time.monotonic() + 0.02 * round
        while time.monotonic() < deadline or not taken:
            assert q.get(timeout=30) == obj
            taken += 1
        for producer in producers:
            kill(producer)
        while q.qsize():
            assert q.get_nowait() == obj
        with pytest.raises(queue.Empty):
            q.get_nowait()
        for _ in range(100):
            q.put_nowait(obj)
        assert q.full()
        assert q.get_many() == [obj] * 100


def get_for_ever(q, ready):
    ready.release()
    while True:
        q.get()


@pytest.mark.fault(8, 10)
def test_a_consumer_killed_in_get_blocks_nobody(ctx):
    q, ready = ctx.Queue(), ctx.Semaphore(0)
    for _ in range(10 if ctx is fork else 3):
        consumers = [ctx.Process(target=get_for_ever, args=(q, ready)) for _ in range(3)]
        for consumer in consumers:
            consumer.start()
        for _ in consumers:
            assert ready.acquire(timeout=60)
        time.sleep(0.02)
        kill(consumers[0])
        for n in range(200):
            q.put(n)
        kill(consumers[1])
        for n in range(200):
            q.put(n)
        deadline = time.monotonic() + 30
        while not q.empty():
            assert time.monotonic() < deadline, "the last consumer does not get on"
            time.sleep(0.001)
        kill(consumers[2])
        q.put("mine")
        assert q.get(timeout=30) == "mine"


def say_and_put(q, obj, ready):
    ready.release()
    q.put(obj)


@pytest.mark.fault(9)
def test_a_producer_that_waits_is_woken_by_a_place_that_a_killed_one_did_not_take(ctx):
    q, ready = ctx.Queue(1), ctx.Semaphore(0)
    q.put(0)
    producers = [ctx.Process(target=say_and_put, args=(q, n, ready)) for n in (1, 2)]
    for producer in producers:
        producer.start()
    for _ in producers:
        assert ready.acquire(timeout=60)
    time.sleep(0.1)
    os.kill(producers[0].pid, signal.SIGSTOP)
    q.get()
    kill(producers[0])
    got = [q.get(timeout=30)]
    producers[1].join()
    if got == [1]:
        got.append(q.get(timeout=30))
    assert got[-1] == 2


# Early ends


def put_and_leave(q):
    q.put(b"x" * 1_000_000)
    os._exit(0)


def test_a_process_may_end_right_after_put(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=put_and_leave, args=(q,))
    child.start()
    child.join()
    assert q.get_nowait() == b"x" * 1_000_000


def put_a_lot(q):
    for _ in range(200):
        q.put(b"x" * 100_000)


@pytest.mark.fault(13)
def test_join_before_drain(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=put_a_lot, args=(q,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert q.qsize() == 200
    assert len(q.get_many()) == 200


def put_one_large(q):
    q.put(bytes(50 << 20))


def put_many_small(q):
    for n in range(100_000):
        q.put(n)


@pytest.mark.fault(13)
def test_join_before_drain_of_fifty_megabytes(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=put_one_large, args=(q,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert q.get(timeout=30) == bytes(50 << 20)


@pytest.mark.fault(13)
def test_join_before_drain_of_a_hundred_thousand_items(method):
    context = tenfold.get_context(method)
    q = context.Queue()
    child = context.Process(target=put_many_small, args=(q,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert [q.get(timeout=30) for _ in range(100_000)] == list(range(100_000))


# Polling


def readable(descriptor, seconds=0.0):
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_a_descriptor_is_readable_while_there_are_messages():
    for q in (tenfold.Queue(), tenfold.SimpleQueue()):
        descriptor = q._reader.fileno()
        assert not readable(descriptor)
        for _ in range(100):
            q.put(1)
            q.put(2)
            assert readable(descriptor, 30)
            q.get()
            assert readable(descriptor)
            q.get()
            assert not readable(descriptor)
        q._writer.send(3)
        assert q._reader.poll() and readable(descriptor)
        assert q._reader.recv() == 3
        assert not q._reader.poll(0.01) and not readable(descriptor)
        assert q._reader.fileno() == descriptor


def poll_and_count(q, results):
    descriptor = q._reader.fileno()
    count = 0
    while True:
        readable(descriptor, 30)
        try:
            if q.get_nowait() is None:
                break
            count += 1
        except queue.Empty:
            pass
    results.put(count)


def test_two_processes_poll_one_queue(method):
    context = tenfold.get_context(method)
    q, results = context.Queue(), context.Queue()
    pollers = [context.Process(target=poll_and_count, args=(q, results)) for _ in range(2)]
    for poller in pollers:
        poller.start()
    for n in range(2000):
        q.put(n)
        if n % 50 == 0:
            time.sleep(0.001)
    for _ in pollers:
        q.put(None)
    assert sum(results.get(timeout=60) for _ in pollers) == 2000
    for poller in pollers:
        poller.join()


def reply(there, back):
    for obj in iter(there.get, None):
        back.put(obj)


def test_a_sole_consumer_may_block_on_what_the_descriptor_promises():
    there, back = fork.Queue(), fork.SimpleQueue()
    child = fork.Process(target=reply, args=(there, back))
    child.start()
    for n in range(2000):
        there.put(n)
        assert wait([back._reader, child.sentinel], 30) == [back._reader]
        assert back._reader.recv() == n
    there.put(None)
    assert wait([back._reader, child.sentinel], 30) == [child.sentinel]
    child.join()


def test_nobody_is_called_to_an_empty_queue_by_a_death():
    q = fork.SimpleQueue()
    child = fork.Process(target=time.sleep, args=(1000,))
    child.start()
    assert wait([q._reader], 0) == []
    os.kill(child.pid, signal.SIGKILL)
    assert wait([q._reader, child.sentinel], 30) == [child.sentinel]
    child.join()
    assert wait([q._reader], 0.05) == []


def poll_in_child(q, results):
    results.put(readable(q._reader.fileno(), 30))
    results.put(q.get(timeout=30))


def test_a_child_of_fork_has_a_descriptor_of_its_own():
    q, results = fork.Queue(), fork.Queue()
    assert not readable(q._reader.fileno())
    child = fork.Process(target=poll_in_child, args=(q, results))
    child.start()
    time.sleep(0.1)
    q.put("for the child")
    assert results.get(timeout=60) is True
    assert results.get(timeout=60) == "for the child"
    child.join()
    assert not readable(q._reader.fileno())
    q.put(1)
    assert readable(q._reader.fileno(), 30)


def put_slowly(q):
    for n in range(50):
        q.put(n)
        time.sleep(0.001)
    q.put(None)


def test_asyncio_reads_a_queue():
    q = fork.Queue()
    child = fork.Process(target=put_slowly, args=(q,))

    async def read():
        got, done = [], asyncio.Event()

        def ready():
            obj = q.get_nowait()
            if obj is None:
                done.set()
            got.append(obj)

        loop = asyncio.get_running_loop()
        loop.add_reader(q._reader.fileno(), ready)
        child.start()
        await asyncio.wait_for(done.wait(), 60)
        loop.remove_reader(q._reader.fileno())
        return got

    assert asyncio.run(read()) == [*range(50), None]
    child.join()


def test_a_thread_that_polls_is_called_by_another():
    q = tenfold.Queue()
    threading.Timer(0.1, q.put, [1]).start()
    assert q._reader.poll(30)
    assert q.get_nowait() == 1
    threading.Timer(0.1, q.put, [2]).start()
    assert wait([q._reader], 30) and q.get_nowait() == 2


def test_more_readers_than_a_queue_has_doorbells():
    q = tenfold.Queue()
    copies = []
    for _ in range(20):
        q.put(q)
        copies.append(q.get())
    for _ in range(5):
        assert wait([copy._reader for copy in copies], 0) == []
        threading.Timer(0.05, q.put, [1]).start()
        for copy in copies:
            assert readable(copy._reader.fileno(), 30)
        assert copies[-1].get() == 1
        assert not readable(copies[-1]._reader.fileno())
    for copy in copies:
        copy._reader.close()


def test_raw_bytes_are_pickles():
    q = tenfold.SimpleQueue()
    q.put([1, 2])
    q.put(3)
    q.put(b"bytes")
    pickles = [q._reader.recv_bytes() for _ in range(3)]
    for pickled in pickles:
        q._writer.send_bytes(pickled)
        q._writer.send_bytes(memoryview(pickled))
    assert [q.get() for _ in range(6)] == [[1, 2], [1, 2], 3, 3, b"bytes", b"bytes"]


def test_closing_a_reader_closes_its_descriptor():
    q = tenfold.Queue()
    with q._reader as reader:
        descriptor = reader.fileno()
        os.fstat(descriptor)
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert reader.closed and not q._writer.closed
    q.put(1)
