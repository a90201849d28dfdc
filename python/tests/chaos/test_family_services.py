"""Those that serve a program are killed: the warden, the fork server, a manager's server."""

import os
import signal

import pytest
from companions import LONG, Counter, eventually, is_running
from test_family import kill_with_its_family, start

import tenfold
from tenfold import managers

pytestmark = pytest.mark.fault(22)

# What a program needs to find the processes that serve it.
FIND = """
import os, signal, time, tenfold
from tenfold import forkserver

def processes(word):
    "The children of this process with the word in their command lines."
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                if word.encode() in line.read() and parent(pid) == os.getpid():
                    found.append(int(pid))
        except (OSError, ValueError):
            pass
    return found

def the_only(word):
    "That child. Just started, it may still have its parent's command line."
    eventually(lambda: processes(word))
    (found,) = processes(word)
    return found

def has_ended(child):
    "Whether it is dead to everybody; before that, whoever looks may still meet it."
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])

def eventually(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)

def twice(x):
    return 2 * x

def put(queue, x):
    queue.put(2 * x)
"""


# As above, for the warden and its deputy, of which both have the warden's command line.
WARDEN = (
    FIND
    + """
from tenfold import _native

def children(parent_pid):
    "The processes that run and have that parent."
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                state, parent_of_it = stat.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z" and int(parent_of_it) == parent_pid:
            found.append(pid)
    return found

def warden_other_than(former):
    found = _native.warden_pid()
    return found not in (None, former) and os.path.exists(f"/proc/{found}") and found
"""
)


# How the interpreter is started: as it is, where the warden never comes to be an interpreter; by a
# file that only leads to it, where the warden is one; and by a loader that preloads nothing, as is
# that of an executable with privileges.
EXECUTABLES = {
    "itself": "",
    "privileged": """
from tenfold import _family
whole = _family._warden_environment
_family._warden_environment = lambda invitation: {**whole(invitation), "LD_PRELOAD": ""}
""",
    "script": """
path = os.path.join(os.getcwd(), "python")
with open(path, "w") as script:
    script.write(f'#!/bin/sh\\nexec {sys.executable} "$@"\\n')
os.chmod(path, 0o755)
tenfold.set_executable(path)
""",
}


class TestStartOfTheWarden:
    @pytest.mark.parametrize("executable", sorted(EXECUTABLES))
    @pytest.mark.parametrize("preloaded", [None, "libc.so.6"])
    def test_it_serves_and_keeps_nothing_open(self, python, executable, preloaded):
        out = python(
            "-c",
            WARDEN
            + f"""
import sys
if {preloaded!r}:
    os.environ["LD_PRELOAD"] = {preloaded!r}
{EXECUTABLES[executable]}
reader, writer = os.pipe()
os.set_inheritable(writer, True)
child = tenfold.get_context("fork").Process(target=os.close, args=(writer,))
child.start()
child.join()
os.close(writer)
# Whoever has a copy keeps this waiting.
assert os.read(reader, 1) == b"" and child.exitcode == 0
warden = the_only("run_warden")
eventually(lambda: children(warden))
assert warden == _native.warden_pid()
with open(f"/proc/{{warden}}/maps") as maps:
    print(maps.read().count("_native"), os.environ.get("LD_PRELOAD"))
with open(f"/proc/{{warden}}/status") as status:
    ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
assert ignored & 1 << signal.SIGINT - 1
""",
        )
        assert out.endswith(f" {preloaded}\n") and not out.startswith("0 ")

    def test_nothing_of_it_is_left_to_children(self, python, method):
        python(
            f"""
import os, tenfold

def child():
    assert "TENFOLD_START" not in os.environ and "LD_PRELOAD" not in os.environ

if __name__ == "__main__":
    process = tenfold.get_context({method!r}).Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
"""
        )


class TestWarden:
    def test_work_goes_on_and_another_takes_its_place(self, python, method):
        python(
            WARDEN
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    queue = context.Queue()
    with context.Pool(2) as pool:
        warden = the_only("run_warden")
        os.kill(warden, signal.SIGKILL)
        eventually(lambda: has_ended(warden))
        # Those that are there go on, and so does what is started afterwards.
        assert pool.map(twice, range(100)) == [2 * x for x in range(100)]
        child = context.Process(target=put, args=(queue, 21))
        child.start()
        assert queue.get(timeout=60) == 42
        child.join(60)
        assert child.exitcode == 0
        eventually(lambda: warden_other_than(warden))
    pool.join()
"""
        )

    def test_the_next_one_ends_the_family(self, method, tmp_path):
        process, (warden, *pids) = start(
            tmp_path,
            WARDEN
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    first = context.Process(target=time.sleep, args=(1000,))
    first.start()
    warden = the_only("run_warden")
    os.kill(warden, signal.SIGKILL)
    # The next start looks whether there is one.
    eventually(lambda: has_ended(warden))
    second = context.Process(target=time.sleep, args=(1000,))
    second.start()
    eventually(lambda: warden_other_than(warden))
    print(warden, first.pid, second.pid, flush=True)
    time.sleep(1000)
""",
        )
        assert len(pids) == 2 and all(map(is_running, pids))
        kill_with_its_family(process, pids)

    @pytest.mark.fault(11)
    def test_its_deputy_ends_the_family_if_both_are_killed(self, method, tmp_path):
        process, (warden, *pids) = start(
            tmp_path,
            WARDEN
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    child = context.Process(target=time.sleep, args=(1000,))
    child.start()
    warden = the_only("run_warden")
    eventually(lambda: children(warden))
    print(warden, child.pid, *children(warden), flush=True)
    time.sleep(1000)
""",
        )
        assert len(pids) == 2 and all(map(is_running, pids))
        os.kill(warden, signal.SIGKILL)
        kill_with_its_family(process, pids)

    @pytest.mark.fault(11)
    def test_it_always_has_a_deputy(self, tmp_path):
        # In turn the warden and its deputy are killed, then the warden together with the program.
        process, pids = start(
            tmp_path,
            WARDEN
            + """
if __name__ == "__main__":
    child = tenfold.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    warden = the_only("run_warden")
    for _ in range(3):
        eventually(lambda: children(warden))
        (deputy,) = children(warden)
        os.kill(warden, signal.SIGKILL)
        eventually(lambda: _native.warden_pid() == deputy)
        warden = deputy
        eventually(lambda: children(warden))
        (deputy,) = children(warden)
        os.kill(deputy, signal.SIGKILL)
        eventually(lambda: children(warden) not in ([], [deputy]))
    print(child.pid, *children(warden), warden, flush=True)
    time.sleep(1000)
""",
        )
        assert len(pids) == 3 and all(map(is_running, pids))
        os.kill(pids[-1], signal.SIGKILL)
        kill_with_its_family(process, pids)


class TestForkServer:
    def test_the_next_start_makes_another(self, python):
        python(
            FIND
            + """
if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    queue = context.Queue()
    for round in range(3):
        child = context.Process(target=put, args=(queue, round))
        child.start()
        assert queue.get(timeout=60) == 2 * round
        child.join(60)
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
"""
        )

    def test_a_pool_goes_on_with_another_server(self, python):
        python(
            FIND
            + """
def has_two(pool):
    return len(pool._pool) == 2 and all(worker.is_alive() for worker in list(pool._pool))

if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    with context.Pool(2) as pool:
        files = len(os.listdir("/proc/self/fd"))
        for round in range(12):
            server = forkserver._forkserver._forkserver_pid
            for pid in [worker.pid for worker in pool._pool]:
                os.kill(pid, signal.SIGKILL)
            # In each round at another moment of the workers' replacement.
            time.sleep(0.002 * round)
            os.kill(server, signal.SIGKILL)
            assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
            eventually(lambda: has_two(pool))
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    pool.join()
"""
        )

    def test_its_children_stay_what_they_are(self, python):
        python(
            FIND
            + """
def wait(queue, event, code):
    queue.put("ready")
    event.wait()
    raise SystemExit(code)

if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    queue, event = context.Queue(), context.Event()
    children = [
        context.Process(target=wait, args=(queue, event, code), daemon=True) for code in (0, 3)
    ]
    for child in children:
        child.start()
        assert queue.get(timeout=60) == "ready"
    with context.Pool(2) as pool:
        pids = [worker.pid for worker in pool._pool]
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
        for child in children:
            child.join(0.1)
            assert child.is_alive() and child.exitcode is None
        assert [worker.pid for worker in pool._pool] == pids
        # One that is killed now is noticed by the kernel's word.
        os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: pids[0] not in [worker.pid for worker in pool._pool])
        assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
    pool.join()
    event.set()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 3]
"""
        )

    def test_one_that_is_stopped_is_a_clear_error(self, python):
        python(
            FIND
            + """
if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    queue = context.Queue()
    pool = context.Pool(2)
    server = forkserver._forkserver._forkserver_pid
    files = len(os.listdir("/proc/self/fd"))
    os.kill(server, signal.SIGSTOP)
    try:
        context.Process(target=put, args=(queue, 1)).start()
    except TimeoutError as error:
        assert f"(pid {server}) is stopped" in str(error), error
    else:
        raise AssertionError("no error")
    # The pool's crew has one open now and then, to look at the server.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    # Who is there works on, and can be ended.
    assert pool.map(twice, range(10)) == [2 * x for x in range(10)]
    pool.terminate()
    pool.join()
    os.kill(server, signal.SIGCONT)
    child = context.Process(target=put, args=(queue, 21))
    child.start()
    assert queue.get(timeout=60) == 42
    child.join(60)
    # What was asked for in vain was not started later.
    assert child.exitcode == 0 and queue.empty()
    assert forkserver._forkserver._forkserver_pid == server
"""
        )

    def test_a_stopped_one_and_a_pool_without_workers(self, python):
        python(
            FIND
            + """
if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    pool = context.Pool(1)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGSTOP)
    os.kill(pool._pool[0].pid, signal.SIGKILL)
    try:
        pool.apply(twice, (1,))
    except tenfold.pool.BrokenPool as error:
        assert "is stopped" in str(error), error
    else:
        raise AssertionError("no error")
    pool.terminate()
    pool.join()
"""
        )

    def test_a_program_whose_server_is_stopped_can_be_killed(self, tmp_path):
        process, pids = start(
            tmp_path,
            FIND
            + """
if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    pool = context.Pool(2)
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGSTOP)
    print(server, *(worker.pid for worker in pool._pool), flush=True)
    pool.terminate()
""",
        )
        kill_with_its_family(process, pids)

    def test_somebody_else_reaps_it(self, python):
        python(
            FIND
            + """
if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    context = tenfold.get_context("forkserver")
    queue = context.Queue()
    for round in range(3):
        child = context.Process(target=put, args=(queue, round))
        child.start()
        assert queue.get(timeout=60) == 2 * round
        child.join(60)
        assert child.exitcode == 0
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
"""
        )

    def test_a_child_of_fork_uses_its_parents(self, python):
        python(
            FIND
            + """
def start(queue):
    child = tenfold.get_context("forkserver").Process(target=put, args=(queue, 21))
    child.start()
    child.join(60)
    raise SystemExit(child.exitcode)

if __name__ == "__main__":
    queue = tenfold.Queue()
    start_one = lambda: tenfold.get_context("forkserver").Process(target=put, args=(queue, 0))
    first = start_one()
    first.start()
    assert queue.get(timeout=60) == 0
    first.join(60)
    for round in range(2):
        child = tenfold.get_context("fork").Process(target=start, args=(queue,))
        child.start()
        assert queue.get(timeout=60) == 42
        child.join(60)
        assert child.exitcode == 0
        # The second time there is none.
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
"""
        )


class Manager(managers.SyncManager):
    pass


Manager.register("Counter", Counter)


class TestManagersServer:
    """Objects on the server go with it; those in the heap stay."""

    def test_every_call_is_an_error(self, ctx):
        manager = Manager(ctx=ctx)
        manager.start()
        counter, shared = manager.Counter(), manager.dict(a=1)
        assert counter.add() == 1
        process = manager._process
        os.kill(process.pid, signal.SIGKILL)
        process.join(LONG)
        assert process.exitcode == -signal.SIGKILL
        for call in (counter.add, manager.Counter):
            with pytest.raises((EOFError, OSError)):
                call()
        assert shared["a"] == 1
        shared["b"] = 2
        manager.shutdown()
        with pytest.raises(OSError):
            shared["a"]

    def test_who_waits_for_an_answer_is_told(self, ctx):
        manager = managers.SyncManager(("127.0.0.1", 0), b"key", ctx=ctx)
        manager.start()
        event = manager.Event()
        process = manager._process
        # It is killed by its own timer, while this process waits for an event that nobody sets.
        waiter = ctx.Process(target=kill_later, args=(process.pid, event))
        waiter.start()
        with pytest.raises((EOFError, OSError)):
            event.wait()
        waiter.join(LONG)
        assert waiter.exitcode == 0
        eventually(lambda: not process.is_alive())
        manager.shutdown()

    def test_a_new_one_can_be_started(self, ctx):
        for _ in range(2):
            manager = Manager(ctx=ctx)
            manager.start()
            assert manager.Counter().add() == 1
            os.kill(manager._process.pid, signal.SIGKILL)
            manager._process.join(LONG)


def kill_later(pid, event):
    """Kill the server once it has answered this process, so that it is known to serve."""
    assert not event.wait(0.2)
    os.kill(pid, signal.SIGKILL)


def test_nothing_of_a_manager_without_a_server_can_be_killed():
    with tenfold.Manager() as manager:
        assert manager._process is None
        assert manager.dict(a=1)["a"] == 1
