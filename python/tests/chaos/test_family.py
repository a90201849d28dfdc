"""Who belongs to the program, and what becomes of them when somebody is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from companions import is_running

METHODS = ("fork", "spawn", "forkserver")


def gone(pids, seconds=10):
    """Whether all processes end within the time."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start(tmp_path, text, *arguments):
    """Start a program that prints pids in its first line; returns it and the pids."""
    program = tmp_path / "program.py"
    program.write_text(text)
    command = [sys.executable, str(program), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, [int(word) for word in process.stdout.readline().split()]


def kill_with_its_family(process, pids):
    """Kill the program; those processes go with it."""
    process.kill()
    process.wait()
    assert gone(pids)


@pytest.mark.fault(11)
@pytest.mark.parametrize("method", METHODS)
def test_all_that_was_started_goes_with_a_killed_root(tmp_path, method):
    process, pids = start(
        tmp_path,
        f"""
import time, tenfold
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    children = [context.Process(target=time.sleep, args=(1000,), daemon=d) for d in (True, False)]
    for child in children:
        child.start()
    print(*(child.pid for child in children), flush=True)
    time.sleep(1000)
""",
    )
    assert len(pids) == 2 and all(map(is_running, pids))
    kill_with_its_family(process, pids)


@pytest.mark.fault(11)
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_root_leaves_nothing_in_the_temporary_folder(tmp_path, method, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    process, pids = start(
        tmp_path,
        f"""
import os, socket, time, tenfold
from tenfold.managers import BaseManager

class Served:
    def pid(self):
        return os.getpid()

class Server(BaseManager):
    pass

Server.register("Served", Served)

def answer(queue):
    for _ in range(2):
        there = queue.get()
        there.send("pipe") if hasattr(there, "poll") else there.sendall(b"sock")

if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    pool, queue, manager = context.Pool(2), context.Queue(), context.Manager()
    values = manager.dict()
    server = Server(ctx=context)
    server.start()
    # Their descriptors are sent.
    child = context.Process(target=answer, args=(queue,))
    child.start()
    (pipe, its_pipe), (sock, its_sock) = context.Pipe(), socket.socketpair()
    queue.put(its_pipe)
    assert pipe.recv() == "pipe"
    queue.put(its_sock)
    assert sock.recv(4) == b"sock"
    child.join()
    print(pool.apply(os.getpid), server.Served().pid(), flush=True)
    time.sleep(1000)
""",
    )
    assert len(pids) == 2
    kill_with_its_family(process, pids)
    assert os.listdir(folder) == []


# Says "ready" once there are processes that wait in each way, and goes on to start others.
EVERYTHING = """
import sys, time, tenfold

def wait(what, ready):
    ready.release()
    what()

if __name__ == "__main__":
    context = tenfold.get_context(sys.argv[1])
    queue, full, ready = context.Queue(), context.Queue(1), context.Semaphore(0)
    lock, event, barrier = context.Lock(), context.Event(), context.Barrier(2)
    lock.acquire()
    full.put(1)
    waits = [queue.get, lock.acquire, event.wait, barrier.wait]
    children = [context.Process(target=wait, args=(what, ready)) for what in waits]
    children.append(context.Process(target=full.put, args=(2,)))
    for n, child in enumerate(children):
        child.daemon = n % 2 == 1
        child.start()
    for _ in waits:
        ready.acquire()
    busy, idle = context.Pool(2), context.Pool(2)
    busy.map_async(time.sleep, [0.001] * 100_000, 1)
    idle.apply(abs, (-1,))
    print(flush=True)
    while True:
        more = [context.Process(target=time.sleep, args=(1000,)) for _ in range(3)]
        for child in more:
            child.start()
        with context.Pool(2):
            for child in more:
                child.kill()
                child.join()
"""


def marked(mark):
    """The running processes that have the mark in their environment."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if mark.encode() in environment.read() and is_running(pid):
                found.append(pid)
    return found


@pytest.mark.fault(11)
@pytest.mark.parametrize("method", METHODS)
def test_a_root_that_is_killed_at_any_moment_leaves_nobody(tmp_path, method, monkeypatch):
    for delay in (0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1):
        mark = f"{tmp_path}-{delay}"
        monkeypatch.setenv("FAMILY", mark)
        process, _ = start(tmp_path, EVERYTHING, method)
        time.sleep(delay)
        assert len(marked(mark)) > 10
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while marked(mark):
            assert time.monotonic() < deadline, marked(mark)
            time.sleep(0.02)


@pytest.mark.fault(11)
def test_what_the_program_forked_by_itself_lives_on(tmp_path):
    process, (own, started) = start(
        tmp_path,
        """
import os, time, tenfold
if __name__ == "__main__":
    lock = tenfold.Lock()
    child = tenfold.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    print(pid, child.pid, flush=True)
    time.sleep(1000)
""",
    )
    kill_with_its_family(process, [started])
    assert is_running(own)
    os.kill(own, signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_a_daemon_goes_with_its_own_parent(tmp_path, method):
    process, (parent, daemon) = start(
        tmp_path,
        f"""
import os, time, tenfold
def parent():
    child = tenfold.Process(target=time.sleep, args=(1000,), daemon=True)
    child.start()
    print(os.getpid(), child.pid, flush=True)
    time.sleep(1000)
if __name__ == "__main__":
    tenfold.set_start_method({method!r})
    child = tenfold.Process(target=parent)
    child.start()
    child.join()
    time.sleep(1000)
""",
    )
    os.kill(parent, signal.SIGKILL)
    assert gone([parent, daemon])
    assert is_running(process.pid)
    process.kill()
    process.wait()


@pytest.mark.parametrize("method", METHODS)
def test_shared_objects_travel_as_arguments(python, method):
    python(f"""
import os, signal, tenfold
def hold(lock, how):
    lock.acquire()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    lock = context.Lock()
    for how in ("killed", "exits"):
        child = context.Process(target=hold, args=(lock, how))
        child.start()
        child.join()
        assert child.exitcode == (-signal.SIGKILL if how == "killed" else 0)
        if how == "killed":
            try:
                lock.acquire(timeout=20)
            except tenfold.OwnerDied:
                pass
            else:
                raise AssertionError("nobody was told")
            assert lock.acquire(timeout=20)
            lock.release()
        else:
            # As the standard library leaves it.
            assert not lock.acquire(timeout=0.3)
""")


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize("thief", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "steal()"])
def test_exit_codes_are_known_though_another_reaps(python, method, thief):
    python(f"""
import os, signal, sys, threading, time, tenfold
def steal():
    def reap_all():
        while True:
            try:
                os.wait()
            except ChildProcessError:
                time.sleep(0.001)
    threading.Thread(target=reap_all, daemon=True).start()
if __name__ == "__main__":
    {thief}
    context = tenfold.get_context({method!r})
    # What the child could not tell itself is unknown (255) if the thief was faster than the warden.
    ends = ((sys.exit, (7,), (7,)), (os._exit, (5,), (5, 255)), (os.abort, (), (-6, 255)))
    for target, args, codes in ends:
        child = context.Process(target=target, args=args)
        child.start()
        child.join(60)
        assert child.exitcode in codes, (target, child.exitcode)
        assert not child.is_alive()
""")


@pytest.mark.parametrize("method", METHODS[::2])
def test_children_that_are_killed_at_birth_leave_nothing_in_the_heap(python, method):
    python(f"""
import gc, os, signal, time, tenfold
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    lock = context.Lock()
    context.Process(target=lock.acquire).start()
    before = tenfold.heap_stats()["bytes_live"]
    for _ in range(100):
        child = context.Process(target=time.sleep, args=(1000,))
        child.start()
        child.kill()
        child.join()
    del child
    # What the dead held, they held with this process, which lets go of it now.
    del lock
    gc.collect()
    end = time.monotonic() + 30
    while tenfold.heap_stats()["bytes_live"] > before:
        assert time.monotonic() < end, (before, tenfold.heap_stats())
        time.sleep(0.01)
""")
