"""Strange clients at a Listener and at a manager's address.

They are refused in bounded time and memory, nothing of theirs is unpickled before they have shown
that they know the key, and those who know it are served meanwhile.
"""

import os
import pickle
import socket
import struct
import time

import pytest
from companions import LONG, Counter, eventually, in_thread

import tenfold
from tenfold import connection, forkserver, managers, resource_sharer

pytestmark = pytest.mark.fault(25)

KEY = b"the key"
# What a server may take of a message that it has to refuse, in bytes.
TAKEN = 16 << 20


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path, padding=b""):
        self.path, self.padding = str(path), padding

    def __reduce__(self):
        return os.mkdir, (self.path,)


def framed(payload):
    return struct.pack("!i", len(payload)) + payload


def beginnings(trap):
    """What strangers send at once, by name; they then wait to be thrown out."""
    return {
        "wrong answer": framed(b"no such digest"),
        "length of 2 GiB": struct.pack("!i", 2**31 - 1),
        "long length of 2 GiB": struct.pack("!iQ", -1, 2**31),
        "long length of everything": struct.pack("!iQ", -1, 2**64 - 1),
        "negative length": struct.pack("!i", -(2**31)),
        "small pickle": framed(pickle.dumps(Trap(trap))),
        "large pickle": framed(pickle.dumps((Trap(trap), b"x" * 4096))),
    }


def knock(address):
    """A raw connection to a listener, which has sent its challenge when this returns."""
    stranger = socket.create_connection(address, LONG)
    assert b"#CHALLENGE#" in stranger.recv(256)
    return stranger


def is_thrown_out(stranger):
    """Whether the other side ends the connection, before the watchdog's time."""
    stranger.settimeout(LONG)
    try:
        while stranger.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def pour(stranger):
    """Send bytes until the other side has had enough; returns how many it took."""
    stranger.settimeout(LONG)
    sent = 0
    try:
        while sent < 8 * TAKEN:
            sent += stranger.send(bytes(1 << 16))
    except ConnectionError:
        pass
    return sent


class Accepting:
    """A thread that accepts at a Listener with a key; each turn's outcome is in `outcomes`."""

    def __init__(self):
        self.listener = connection.Listener(("127.0.0.1", 0), backlog=16, authkey=KEY)
        self.address = self.listener.address
        self.outcomes = []
        self.thread = in_thread(self.run)

    def run(self):
        while True:
            try:
                with self.listener.accept() as client:
                    word = client.recv()
                    self.outcomes.append(word)
                    client.send(word)
                    if word == "end":
                        return
            except Exception as error:
                # Not the error itself: its traceback would keep the connection open.
                self.outcomes.append(type(error))

    def serves(self, word):
        with connection.Client(self.address, authkey=KEY) as client:
            client.send(word)
            assert client.poll(LONG) and client.recv() == word

    def end(self):
        self.serves("end")
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        self.listener.close()


@pytest.fixture
def accepting():
    one = Accepting()
    yield one
    one.end()


class TestListener:
    """`Listener.accept` is the standard library's code, on tenfold's connections."""

    @pytest.mark.parametrize("name", beginnings(""))
    def test_what_is_wrong_is_refused_and_the_listener_goes_on(self, accepting, tmp_path, name):
        trap = tmp_path / "trap"
        with knock(accepting.address) as stranger:
            stranger.sendall(beginnings(trap)[name])
            assert is_thrown_out(stranger)
        accepting.serves("hello")
        (error, word) = accepting.outcomes[:2]
        # Never a MemoryError: the length is refused before room is made for it.
        assert issubclass(error, (tenfold.AuthenticationError, OSError)), error
        assert word == "hello"
        assert not trap.exists()

    def test_a_long_message_is_not_read(self, accepting):
        with knock(accepting.address) as stranger:
            stranger.sendall(struct.pack("!i", 2**31 - 1))
            assert pour(stranger) < TAKEN
        accepting.serves("hello")

    def test_a_client_with_a_wrong_key_is_told(self, accepting):
        with pytest.raises(tenfold.AuthenticationError):
            connection.Client(accepting.address, authkey=b"another key")
        accepting.serves("hello")

    @pytest.mark.parametrize("sent", [b"", struct.pack("!i", 20) + b"half"])
    def test_a_silent_client_holds_up_the_listener_for_as_long_as_it_stays(self, accepting, sent):
        # So docs/security.md tells to authenticate in a thread of the client's own.
        with knock(accepting.address) as stranger:
            stranger.sendall(sent)
        accepting.serves("hello")
        assert issubclass(accepting.outcomes[0], (EOFError, OSError))

    def test_authentication_in_a_thread_of_its_own(self):
        # The way that docs/security.md shows.
        def serve(client):
            try:
                connection.deliver_challenge(client, KEY)
                connection.answer_challenge(client, KEY)
                client.send(client.recv())
            except (tenfold.AuthenticationError, EOFError, OSError):
                pass
            finally:
                client.close()

        def accept():
            for _ in range(2):
                in_thread(serve, listener.accept())

        with connection.Listener(("127.0.0.1", 0), backlog=16) as listener:
            in_thread(accept)
            with (
                knock(listener.address),
                connection.Client(listener.address, authkey=KEY) as client,
            ):
                client.send("hello")
                assert client.poll(LONG) and client.recv() == "hello"


class Manager(managers.BaseManager):
    pass


Manager.register("Counter", Counter)


def be_impatient():
    managers._AUTHENTICATION_LIMIT = 0.5


@pytest.fixture
def server(ctx):
    manager = Manager(("127.0.0.1", 0), KEY, ctx=ctx)
    manager.start(be_impatient)
    yield manager
    manager.shutdown()


def serves(server):
    client = Manager(server.address, KEY)
    client.connect()
    counter = client.Counter()
    assert [counter.add(), counter.add()] == [1, 2]


def used(server):
    """The most memory that the server's process has used so far, in bytes."""
    with open(f"/proc/{server._process.pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


class TestManager:
    def test_strangers_are_refused_and_others_are_served(self, server, tmp_path):
        serves(server)
        before = used(server)
        trap = tmp_path / "trap"
        strangers = []
        for beginning in (*beginnings(trap).values(), b"", struct.pack("!i", 20) + b"half"):
            strangers.append(knock(server.address))
            strangers[-1].sendall(beginning)
        serves(server)
        for stranger in strangers:
            with stranger:
                assert is_thrown_out(stranger)
        serves(server)
        assert not trap.exists()
        assert used(server) < before + (64 << 20)

    def test_a_long_message_is_not_read(self, server):
        with knock(server.address) as stranger:
            stranger.sendall(struct.pack("!i", 2**31 - 1))
            assert pour(stranger) < TAKEN
        serves(server)

    def test_a_wrong_key_is_an_error_at_connect(self, server):
        client = Manager(server.address, b"another key")
        with pytest.raises(tenfold.AuthenticationError):
            client.connect()
        serves(server)

    def test_a_byte_now_and_then_buys_no_time(self, server):
        with knock(server.address) as stranger:
            begun = time.monotonic()
            stranger.sendall(struct.pack("!i", 256))
            with pytest.raises(ConnectionError):
                while time.monotonic() < begun + LONG:
                    stranger.send(b"x")
                    # The client's pace: it is slow on purpose.
                    time.sleep(0.05)
        serves(server)

    def test_silent_clients_do_not_add_up(self, server):
        files = f"/proc/{server._process.pid}/fd"
        serves(server)
        before = len(os.listdir(files))
        strangers = [knock(server.address) for _ in range(50)]
        serves(server)
        # What is one more is a connection of serves() that is being closed.
        eventually(lambda: len(os.listdir(files)) <= before)
        for stranger in strangers:
            stranger.close()


@pytest.mark.parametrize("manager", [managers.SyncManager, managers.SharedMemoryManager])
def test_every_manager_with_an_address(manager):
    with manager(("127.0.0.1", 0), KEY) as server:
        with knock(server.address) as stranger:
            stranger.sendall(framed(b"no such digest"))
            assert is_thrown_out(stranger)
        with pytest.raises(tenfold.AuthenticationError):
            manager(server.address, b"another key").connect()
        client = manager(server.address, KEY)
        client.connect()


def test_a_server_in_a_process_of_the_program_s_own():
    manager = Manager(("127.0.0.1", 0), KEY)
    assert type(manager.get_server()) is managers.Server
    shared = managers.SharedMemoryManager(("127.0.0.1", 0), KEY)
    assert isinstance(shared.get_server(), managers.SharedMemoryServer)


def knock_as_nobody(pipe, address):
    os.setgroups([])
    os.setuid(65534)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LONG)
        client.connect(address)
        # A stranger's descriptors are not taken; the connection ends at once.
        try:
            pipe.send(client.recv(1))
        except ConnectionError:
            pipe.send(b"")


def is_turned_away(address):
    """Whether another user's connection to the address ends at once."""
    here, there = tenfold.Pipe()
    # Not by the fork server, whose child would be this user's for the connection that made it.
    nobody = tenfold.get_context("fork").Process(target=knock_as_nobody, args=(there, address))
    nobody.start()
    assert here.poll(LONG) and here.recv() == b""
    nobody.join(LONG)
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_manager_without_an_address_turns_other_users_away(ctx):
    with Manager(None, KEY, ctx=ctx) as server:
        assert is_turned_away(server.address)
        serves(server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_fork_server_turns_other_users_away():
    context = tenfold.get_context("forkserver")
    forkserver.ensure_running()
    address = forkserver._forkserver._forkserver_address
    assert is_turned_away(address)
    # The server goes on.
    with context.Pool(1) as pool:
        assert pool.apply(abs, (-3,)) == 3
    pool.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_sends_a_descriptor_turns_other_users_away(ctx):
    queue, (pipe, sent) = ctx.Queue(), ctx.Pipe()
    queue.put(sent)
    assert is_turned_away(resource_sharer._resource_sharer._address)
    # It is still there for who is meant.
    child = ctx.Process(target=say_through, args=(queue,))
    child.start()
    assert pipe.poll(LONG) and pipe.recv() == "here"
    child.join(LONG)


def say_through(queue):
    queue.get().send("here")
