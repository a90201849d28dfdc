"""No room, no descriptors, no length of files: errors at the call, and nothing half-made stays."""

import os

import pytest

pytestmark = pytest.mark.fault(23)

START = """
import gc, os, queue, resource, signal, sys, time, tenfold

def twice(x):
    return 2 * x

def stats():
    gc.collect()
    return tenfold.heap_stats()["bytes_live"]

def refused(call, *args, errors=(MemoryError, OSError), **kwargs):
    "The error of a call that must not succeed."
    try:
        call(*args, **kwargs)
    except errors as error:
        return error
    raise AssertionError("no error")

def limit(what, value):
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))
"""


class TestHeapLimit:
    """`tenfold.set_heap_limit`."""

    LIMITED = (
        START
        + """
def fill(context):
    "A queue in a heap that is full."
    queue = context.Queue()
    tenfold.set_heap_limit(tenfold.heap_stats()["bytes_committed"] + (8 << 20))
    pieces = 0
    try:
        while True:
            queue.put(bytes(1 << 20))
            pieces += 1
    except tenfold.HeapFull as error:
        assert "raise the limit" in str(error), error
    assert 1 <= pieces <= 16, pieces
    return queue, pieces
"""
    )

    def test_every_call_is_an_error_and_leaves_nothing(self, python):
        python(
            self.LIMITED
            + """
queue, pieces = fill(tenfold)
assert queue.qsize() == pieces
before = stats()
large = bytes(2 << 20)
for _ in range(20):
    refused(queue.put, large, errors=tenfold.HeapFull)
    refused(queue.put_many, [b"small", large], errors=tenfold.HeapFull)
    refused(tenfold.Array, "c", 4 << 20, errors=tenfold.HeapFull)
    refused(tenfold.RawArray, "c", 4 << 20, errors=tenfold.HeapFull)
small = queue.qsize() - pieces
assert stats() <= before + 4096 * small, (before, stats(), small)
# Room that is given back can be used again, and a higher limit holds at once.
for _ in range(pieces + small):
    queue.get(timeout=60)
queue.put(large)
assert queue.get(timeout=60) == large
tenfold.set_heap_limit(1 << 30)
queue.put(bytes(32 << 20))
assert len(queue.get(timeout=60)) == 32 << 20
"""
        )

    def test_a_managers_objects(self, python):
        python(
            self.LIMITED
            + """
with tenfold.Manager() as manager:
    d, l = manager.dict(a=1), manager.list([1])
    queue, pieces = fill(tenfold)
    before = stats()
    large = bytes(2 << 20)
    for _ in range(20):
        refused(d.__setitem__, "b", large, errors=tenfold.HeapFull)
        refused(d.update, {"a": large}, errors=tenfold.HeapFull)
        refused(l.append, large, errors=tenfold.HeapFull)
        refused(l.__setitem__, 0, large, errors=tenfold.HeapFull)
    assert stats() <= before, (before, stats())
    assert dict(d) == {"a": 1} and list(l) == [1]
"""
        )

    def test_a_pool_goes_on(self, python, method):
        python(
            self.LIMITED
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    with context.Pool(2) as pool:
        assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
        queue, pieces = fill(context)
        refused(pool.apply, len, (bytes(4 << 20),), errors=tenfold.HeapFull)
        # A result that has no room is that task's error, whatever it is called.
        refused(pool.apply, bytes, (4 << 20,), errors=Exception)
        for _ in range(pieces):
            queue.get(timeout=60)
        assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
        assert len(pool.apply(bytes, (1 << 20,))) == 1 << 20
    pool.join()
"""
        )


class TestDescriptors:
    """RLIMIT_NOFILE, reached."""

    def test_without_descriptors(self, python, method):
        python(
            START
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    queue, lock = context.Queue(), context.Lock()
    child = context.Process(target=queue.put, args=(1,))
    child.start()
    assert queue.get(timeout=60) == 1
    child.join(60)
    assert child.exitcode == 0
    before = len(os.listdir("/proc/self/fd"))
    limit(resource.RLIMIT_NOFILE, 256)
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(5):
        refused(context.Process(target=queue.put, args=(2,)).start)
        refused(context.Pipe)
        refused(context.Pool, 2)
        # What needs no descriptor works.
        queue.put(3)
        assert queue.get(timeout=60) == 3
        with lock:
            context.Event().set()
    for fd in taken:
        os.close(fd)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    child = context.Process(target=queue.put, args=(4,))
    child.start()
    assert queue.get(timeout=60) == 4
    child.join(60)
    assert child.exitcode == 0 and queue.empty()
    with context.Pool(2) as pool:
        assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
    pool.join()
"""
        )

    def test_the_first_object_without_descriptors(self, python):
        python(
            START
            + """
limit(resource.RLIMIT_NOFILE, 64)
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(3):
    refused(tenfold.Lock)
    refused(tenfold.Queue)
for fd in taken:
    os.close(fd)
assert tenfold.Lock().acquire(timeout=60)
"""
        )


class TestProcesses:
    """RLIMIT_NPROC, reached."""

    # Root is exempt from the limit, and so is who may administrate the system. This is neither,
    # but it can read root's files, and so can what it execs: its interpreter may be in root's home.
    LIMITED = (
        START
        + """
import ctypes

def become_limited():
    libc = ctypes.CDLL(None, use_errno=True)
    drop_from_bounds, cap_sys_admin, cap_sys_resource = 24, 21, 24
    for capability in (cap_sys_admin, cap_sys_resource):
        assert libc.prctl(drop_from_bounds, capability, 0, 0, 0) == 0
    os.setresuid(54321, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0, os.strerror(ctypes.get_errno())
"""
    )

    @pytest.mark.skipif(os.geteuid() != 0, reason="the limit counts all processes of the user")
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_without_processes(self, python, method):
        python(
            self.LIMITED
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    queue = context.Queue()
    # There is a warden from here on.
    context.Pool(1).terminate()
    child = context.Process(target=queue.put, args=(1,))
    child.start()
    assert queue.get(timeout=60) == 1
    child.join(60)
    del child
    become_limited()
    limit(resource.RLIMIT_NPROC, 0)
    before, files = stats(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        refused(context.Process(target=queue.put, args=(2,)).start, errors=OSError)
        refused(context.Pool, 2, errors=(OSError, RuntimeError))
        queue.put(3)
        assert queue.get(timeout=60) == 3
    assert stats() <= before, (before, tenfold.heap_stats())
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    limit(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    child = context.Process(target=queue.put, args=(4,))
    child.start()
    assert queue.get(timeout=60) == 4
    child.join(60)
    assert child.exitcode == 0
"""
        )

    @pytest.mark.skipif(os.geteuid() != 0, reason="the limit counts all processes of the user")
    def test_the_fork_server_without_processes(self, python):
        python(
            self.LIMITED
            + """
from tenfold import forkserver

if __name__ == "__mp_main__" and os.getppid() == int(os.environ["PROGRAM"]):
    # The server imports this first, and the program itself goes on without limit.
    become_limited()
    every = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    signal.signal(signal.SIGUSR1, lambda *_: limit(resource.RLIMIT_NPROC, 0))
    signal.signal(signal.SIGUSR2, lambda *_: limit(resource.RLIMIT_NPROC, every))

def lives(pool):
    return len(pool._pool) == 2 and all(worker.is_alive() for worker in list(pool._pool))

if __name__ == "__main__":
    os.environ["PROGRAM"] = str(os.getpid())
    context = tenfold.get_context("forkserver")
    queue = context.Queue()
    child = context.Process(target=queue.put, args=(1,))
    child.start()
    assert queue.get(timeout=60) == 1
    child.join(60)
    del child
    server = forkserver._forkserver._forkserver_pid

    def limit_server(signum):
        before = limits()
        os.kill(server, signum)
        end = time.monotonic() + 30
        while limits() == before:
            assert time.monotonic() < end
            time.sleep(0.005)

    def limits():
        with open(f"/proc/{server}/limits") as text:
            return text.read()

    limit_server(signal.SIGUSR1)

    def files():
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", server)]

    before, files_before = stats(), files()
    for _ in range(20):
        error = refused(context.Process(target=queue.put, args=(2,)).start, errors=BlockingIOError)
        assert "the fork server cannot fork" in str(error), error
        del error
        refused(context.Pool, 2, errors=BlockingIOError)
    assert stats() <= before, (before, stats())
    assert all(now <= then + 1 for now, then in zip(files(), files_before)), files()
    # A family has room for 1024 processes: each refusal has given back the place of its child.
    for _ in range(1100):
        refused(context.Process(target=queue.put, args=(3,)).start, errors=BlockingIOError)
    limit_server(signal.SIGUSR2)
    child = context.Process(target=queue.put, args=(4,))
    child.start()
    assert queue.get(timeout=60) == 4
    child.join(60)
    assert child.exitcode == 0 and queue.empty()
    # It is the same server.
    assert forkserver._forkserver._forkserver_pid == server
"""
        )


class TestFileSize:
    """RLIMIT_FSIZE holds for memory files too, and its signal kills."""

    def test_errors_and_no_signal(self, python):
        python(
            START
            + """
# Python ignores SIGXFSZ; other programs do not.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
queue = tenfold.Queue()
# The heap's file begins with tables of 17 MiB.
limit(resource.RLIMIT_FSIZE, 40 << 20)
before, large = stats(), bytes(64 << 20)
for _ in range(5):
    refused(queue.put, large)
    refused(tenfold.RawArray, "c", 64 << 20)
assert queue.empty() and stats() <= before
queue.put("small")
assert queue.get(timeout=60) == "small"
limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
queue.put(large)
assert queue.get(timeout=60) == large
"""
        )


class TestReusedDescriptors:
    """A program that becomes a daemon closes every descriptor it finds; the numbers are reused."""

    def test_no_byte_goes_into_a_strangers_file(self, python, tmp_path):
        python(
            START
            + f"""
queue = tenfold.Queue()
os.closerange(3, 256)
strangers = [os.open({str(tmp_path)!r} + f"/{{n}}", os.O_RDWR | os.O_CREAT) for n in range(64)]
# What needs the file is an error that tells the reason, the rest works; no stranger is met.
for size in (1, 1 << 10, 1 << 20, 8 << 20, 64 << 20):
    try:
        queue.put(bytes(size))
        assert len(queue.get(timeout=60)) == size
    except Exception as error:
        assert "descriptor was closed" in str(error), error
assert all(os.fstat(fd).st_size == 0 for fd in strangers)
"""
        )
