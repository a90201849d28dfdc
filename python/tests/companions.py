"""What does something beside a test and says how far it is, and the watch over programs."""

import os
import signal
import subprocess
import sys
import threading
import time

# Seconds after which something is taken not to happen.
LONG = 60


class Child:
    """A process that runs `target(pipe, *args)` and tells how far it is through the pipe."""

    def __init__(self, ctx, target, *args, name=None):
        self.pipe, there = ctx.Pipe()
        self.process = ctx.Process(target=target, args=(there, *args), daemon=True, name=name)
        self.process.start()
        there.close()
        self.pid = self.process.pid

    def hear(self, wanted=None):
        assert self.pipe.poll(LONG), f"{self.process} said nothing"
        said = self.pipe.recv()
        if wanted is not None:
            assert said == wanted
        return said

    def is_silent(self, seconds=0.3):
        return not self.pipe.poll(seconds)

    def go(self, word="go"):
        self.pipe.send(word)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.join(LONG)
        assert self.process.exitcode == -signal.SIGKILL

    def end(self, code=0):
        self.process.join(LONG)
        assert self.process.exitcode == code
        return self


def in_thread(function, *args, name=None):
    thread = threading.Thread(target=function, args=args, name=name, daemon=True)
    thread.start()
    return thread


def eventually(true, seconds=LONG):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def finish(command, limit, **options):
    """Run a Python program in a session of its own; return it, ended, and its two outputs. One that
    has not ended within the limit is killed with all of its group, and is the test's failure."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the program hangs\n{out}\n{err}") from None
    return process, out, err


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Counter:
    """What a manager's server keeps."""

    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value


# What companions do. Each says "ready" once it is where it shall be.


def hold(pipe, lock, how="acquire"):
    if how == "with":
        lock.__enter__()
    else:
        lock.acquire()
    pipe.send("ready")
    pipe.recv()


def wait_at(pipe, condition, timeout=None):
    with condition:
        pipe.send("ready")
        got = condition.wait(timeout)
        pipe.send(got)


def wait_for_event(pipe, event, timeout=None):
    pipe.send("ready")
    pipe.send(event.wait(timeout))


def meet(pipe, barrier, timeout=None):
    pipe.send("ready")
    try:
        pipe.send(barrier.wait(timeout))
    except threading.BrokenBarrierError:
        pipe.send("broken")
