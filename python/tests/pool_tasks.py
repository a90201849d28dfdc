"""What the tests of pools have their workers do, and how they look at them."""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import sys
import threading
import time

import tenfold


def eventually(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def kill_all(workers):
    for worker in list(workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
    return [worker.pid for worker in workers]


def same(x):
    return x


def square(x):
    return x * x


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def raise_it(exception):
    raise exception


def pairs(a, b=0, *, c=0):
    return (a, b, c)


HOW = {
    "raise": lambda: None,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "_exit": lambda: os._exit(3),
    "exit": lambda: sys.exit(4),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
}


ENDS = {"kill": -9, "term": -15, "_exit": 3, "exit": 4, "abort": -6, "segfault": -11}


def die_at(x, at=3, how="kill"):
    if x == at:
        HOW[how]()
    return x * x


def die_at_three(x):
    return die_at(x)


def once(path):
    """Dies the first time."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "at last"


def fork_and_die():
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    os._exit(1)


def fork_and_return(x):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return x


def put(queue, value):
    queue.put(value)


def queue_size(queue):
    return queue.qsize()


def bound_put(queue):
    return functools.partial(put, queue)


class NotPicklable:
    def __reduce__(self):
        raise RuntimeError("it cannot be pickled")


class NotUnpicklable:
    def __reduce__(self):
        return (raise_it, (RuntimeError("it cannot be unpickled"),))


class TwoArguments(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Unsendable(Exception):
    def __init__(self):
        super().__init__("unsendable")
        self.lock = threading.Lock()


def give(kind):
    return {"result": threading.Lock, "unpicklable": NotUnpicklable}[kind]()


def vanish():
    """Exists in the parent only: see below."""


def raise_two():
    raise TwoArguments(1, 2)


def raise_unsendable():
    raise Unsendable


class InterruptsItsReport(Exception):
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return InterruptsItsReport, ()


def raise_interrupting():
    raise InterruptsItsReport


def forget_function():
    globals().pop("vanish", None)


def recurse():
    return recurse()


def raise_large(size):
    raise ValueError("x" * size)


def raise_chain(length):
    try:
        if length > 1:
            raise_chain(length - 1)
    except ValueError as error:
        raise ValueError(f"{length - 1}") from error
    raise ValueError("first")


def deep_list(depth):
    nested = []
    for _ in range(depth):
        nested = [nested]
    return nested


def fill(size):
    return len(bytearray(size))


def limit_and_fill(limit, size):
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return fill(size)


_remembered = None


def remember(value):
    global _remembered
    _remembered = value


def recall():
    return _remembered


def note_and_die(folder, how):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    HOW[how]()


def start_well_or_not(folder, go, how):
    """The first worker starts well, the others wait for `go` and fail until all is well."""
    path = os.path.join(folder, str(os.getpid()))
    open(path, "w").close()
    first = os.path.join(folder, "first")
    try:
        os.link(path, first)
    except FileExistsError:
        if not os.path.exists(os.path.join(folder, "well")):
            go.wait(20)
            HOW[how]()
            raise LookupError("not this one") from None


def inner(sizes):
    count, depth = sizes
    with tenfold.Pool(2) as pool:
        if depth == 2:
            return pool.map(same, range(count))
        return pool.map(inner, [(2, depth - 1)] * count)


_kept = []


def start_daemons():
    daemons = [tenfold.Process(target=time.sleep, args=(1000,), daemon=True) for _ in range(2)]
    for daemon in daemons:
        daemon.start()
    _kept.extend(daemons)
    return [os.getpid(), *(daemon.pid for daemon in daemons)]


def wait_and_raise(go):
    go.wait(20)
    raise LookupError("in the initializer")


def start_inner():
    pool = tenfold.Pool(2)
    pool.apply(square, (3,))
    _kept.append(pool)
    return [os.getpid(), *(worker.pid for worker in pool._pool)]


def wait_or_set(event, number, last, data):
    """The first one waits until the last one has run."""
    if number == last:
        event.set()
    return event.wait(30) if number == 0 else True


def change_and_die(path, array, ways):
    """Return what came first in the array; the first time, change that and die."""
    first = float(array[0])
    array[:] = -1
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return first + ways
