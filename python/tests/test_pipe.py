"""Pipes: the native ends move what the standard library's move, to either side's end."""

import os
import pickle
import signal
import struct
import threading
import time
from multiprocessing import connection as standard
from multiprocessing import reduction

import pytest
from companions import LONG, in_thread

import tenfold
from tenfold import _pipe

OBJECTS = [
    None,
    True,
    0,
    -(2**200),
    1.5,
    "ä\ud800",
    b"",
    b"x" * 20_000,
    bytearray(b"mutable"),
    [1, (2, {"three": [4.0, None]})],
    {"a": list(range(1000))},
    {1, 2},
    ValueError("an exception"),
    range(3),
]


def same(a, b):
    return type(a) is type(b) and (a == b or repr(a) == repr(b))


def as_standard(ours):
    return standard.Connection(os.dup(ours.fileno()), ours.readable, ours.writable)


@pytest.fixture(params=[True, False], ids=["socket", "pipe"])
def ends(request):
    """(receiver, sender), tenfold's."""
    receiver, sender = tenfold.Pipe(request.param)
    with receiver, sender:
        yield receiver, sender


def test_tenfold_makes_its_own_connections():
    for end in (*tenfold.Pipe(), *tenfold.get_context("spawn").Pipe(duplex=False)):
        assert type(end) is _pipe.Connection
        assert isinstance(end, standard.Connection)


@pytest.mark.parametrize("which", ["both ours", "standard sender", "standard receiver"])
def test_objects_arrive_whosever_the_ends_are(ends, which):
    receiver, sender = ends
    receiver = as_standard(receiver) if which == "standard receiver" else receiver
    sender = as_standard(sender) if which == "standard sender" else sender
    for sent in OBJECTS:
        sender.send(sent)
        assert same(receiver.recv(), sent)
    for message in (b"", b"short", bytearray(30_000), memoryview(b"abcdef")[::1]):
        sender.send_bytes(message)
        assert receiver.recv_bytes() == bytes(message)
    sender.send_bytes(b"abcdef", 2, 3)
    assert receiver.recv_bytes() == b"cde"
    sender.send_bytes(b"12345")
    into = bytearray(8)
    assert receiver.recv_bytes_into(into, 1) == 5
    assert into == b"\x0012345\0\0"


@pytest.mark.parametrize("which", ["both ours", "standard sender", "standard receiver"])
def test_large_messages_arrive_whole(ends, which):
    receiver, sender = ends
    receiver = as_standard(receiver) if which == "standard receiver" else receiver
    sender = as_standard(sender) if which == "standard sender" else sender
    large = os.urandom(1 << 20) * 40 + b"end"
    thread = in_thread(lambda: [sender.send(large), sender.send_bytes(large), sender.send("last")])
    assert receiver.recv() == large
    assert receiver.recv_bytes() == large
    assert receiver.recv() == "last"
    thread.join(LONG)
    assert not thread.is_alive()


def test_what_is_registered_with_reduction_is_used(ends):
    class Odd:
        pass

    reduction.register(Odd, lambda odd: (str, ("reduced",)))
    receiver, sender = ends
    try:
        for sent in (Odd(), [Odd()], {1: (Odd(),)}):
            sender.send(sent)
            assert "reduced" in repr(receiver.recv())
    finally:
        del reduction.ForkingPickler._extra_reducers[Odd]


def test_a_subclass_keeps_its_class(ends):
    receiver, sender = ends
    for sent in (signal.SIGTERM, [signal.SIGTERM]):
        sender.send(sent)
        assert same(receiver.recv(), sent)


def test_what_cannot_be_pickled_sends_nothing(ends):
    receiver, sender = ends
    with pytest.raises((pickle.PicklingError, AttributeError)):
        sender.send(lambda: None)
    sender.send(1)
    assert receiver.recv() == 1


def outcome(function):
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


def test_errors_are_those_of_the_standard_library():
    def outcomes(module):
        receiver, sender = module.Pipe(False)
        got = [
            outcome(lambda: receiver.send(1)),
            outcome(lambda: sender.recv()),
            outcome(lambda: sender.poll()),
            outcome(lambda: sender.recv_bytes()),
            outcome(lambda: receiver.recv_bytes(-1)),
            outcome(lambda: sender.send_bytes(b"abc", 4)),
        ]
        sender.send_bytes(b"too long")
        got += [outcome(lambda: receiver.recv_bytes(3)), receiver.closed]
        got += [outcome(lambda: receiver.recv()), outcome(lambda: sender.send(1))]
        sender.close()
        got += [outcome(lambda: sender.send(1)), outcome(lambda: sender.send_bytes(b""))]
        one, other = module.Pipe()
        other.send_bytes(b"too long")
        got += [outcome(lambda: one.recv_bytes(3)), one.readable, one.writable]
        got.append(outcome(lambda: one.recv()))
        receiver, sender = module.Pipe(False)
        os.write(sender.fileno(), struct.pack("!i", 100) + b"cut")
        sender.close()
        got += [receiver.poll(), outcome(lambda: receiver.recv()), outcome(lambda: receiver.recv())]
        for beginning in (b"\0", struct.pack("!i", 9), struct.pack("!iQ", -1, 9)):
            receiver, sender = module.Pipe(False)
            os.write(sender.fileno(), beginning)
            sender.close()
            got.append(outcome(lambda end=receiver: end.recv_bytes()))
        return got

    assert outcomes(tenfold) == outcomes(standard)


def test_a_length_takes_no_memory_before_the_message_comes():
    import resource

    receiver, sender = tenfold.Pipe(False)
    os.write(sender.fileno(), struct.pack("!iQ", -1, 2**62) + b"little")
    sender.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OSError, match="end of file"):
        receiver.recv()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_nothing_is_read_ahead(ends):
    receiver, sender = ends
    for message in (b"one", b"", b"three"):
        sender.send_bytes(message)
    assert receiver.recv_bytes() == b"one"
    assert receiver.recv_bytes() == b""
    assert os.read(receiver.fileno(), 100) == struct.pack("!i", 5) + b"three"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_message_that_comes_byte_by_byte(ends, blocking):
    receiver, sender = ends
    got = []
    thread = in_thread(lambda: got.append(receiver.recv_bytes()))
    for byte in struct.pack("!iQ", -1, 3) + b"abc":
        time.sleep(0.002)
        os.write(sender.fileno(), bytes([byte]))
    thread.join(LONG)
    assert got == [b"abc"]
    os.set_blocking(receiver.fileno(), blocking)
    os.write(sender.fileno(), b"\0\0")
    sender.close()
    with pytest.raises(OSError, match="end of file during message"):
        receiver.recv()


def test_an_end_that_does_not_block_says_so(ends):
    receiver, _ = ends
    os.set_blocking(receiver.fileno(), False)
    with pytest.raises(BlockingIOError):
        receiver.recv()


def test_poll_waits_as_long_as_it_is_told(ends):
    receiver, sender = ends
    assert not receiver.poll()
    assert not receiver.poll(-1)
    started = time.monotonic()
    assert not receiver.poll(0.2)
    assert 0.2 <= time.monotonic() - started < LONG
    timer = threading.Timer(0.1, sender.send, ["late"])
    timer.start()
    assert receiver.poll(None)
    assert receiver.poll(LONG)
    assert receiver.recv() == "late"
    sender.close()
    assert receiver.poll()
    with pytest.raises(EOFError):
        receiver.recv()


def test_other_threads_run_while_one_receives(ends):
    receiver, sender = ends
    got = []
    thread = in_thread(lambda: got.append(receiver.recv()))
    sender.send("from another thread")
    thread.join(LONG)
    assert got == ["from another thread"]


class TestSignals:
    @pytest.fixture
    def alarm(self):
        """Sets a handler, and has it called in a moment, again and again."""
        before = signal.getsignal(signal.SIGALRM)

        def start(handler):
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)

        yield start
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    @pytest.mark.parametrize("wait", ["recv", "recv_bytes", "poll", "send"])
    def test_a_handler_that_raises_ends_a_wait(self, ends, alarm, wait):
        receiver, sender = ends
        waits = {
            "recv": receiver.recv,
            "recv_bytes": receiver.recv_bytes,
            "poll": lambda: receiver.poll(LONG),
            "send": lambda: sender.send_bytes(bytes(50 << 20)),
        }

        def handler(*_):
            # Once: the next would end the test itself.
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise LookupError("from the handler")

        alarm(handler)
        with pytest.raises(LookupError):
            waits[wait]()

    def test_a_message_goes_on_after_a_handler(self, ends, alarm):
        receiver, sender = ends
        calls = []
        alarm(lambda *_: calls.append(1))
        message = bytes(range(256)) * 4000

        def dribble():
            whole = struct.pack("!i", len(message)) + message
            for at in range(0, len(whole), 100_000):
                time.sleep(0.03)
                os.write(sender.fileno(), whole[at : at + 100_000])

        thread = in_thread(dribble)
        assert receiver.recv_bytes() == message
        thread.join(LONG)
        assert calls


def _echo(end):
    while True:
        end.send(end.recv())


def _echo_by_way_of(queue):
    _echo(queue.get())


class TestProcesses:
    def test_there_and_back(self, ctx):
        here, there = ctx.Pipe()
        child = ctx.Process(target=_echo, args=(there,), daemon=True)
        child.start()
        there.close()
        for sent in OBJECTS:
            here.send(sent)
            assert same(here.recv(), sent)
        child.kill()
        child.join()
        with pytest.raises((EOFError, ConnectionResetError)):
            here.recv()
        with pytest.raises(BrokenPipeError):
            here.send(1)

    def test_a_connection_travels_in_a_queue(self, ctx):
        here, there = ctx.Pipe()
        queue = ctx.Queue()
        child = ctx.Process(target=_echo_by_way_of, args=(queue,), daemon=True)
        child.start()
        queue.put(there)
        here.send("hello")
        assert here.recv() == "hello"
        child.kill()
        child.join()
