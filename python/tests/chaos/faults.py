"""The faults of docs/faults.md, each as a small program for any `multiprocessing`.

usage: python faults.py NUMBER MODULE METHOD       python faults.py 7 tenfold fork

A program does what must work, and lets what goes wrong come out as an exception. Where a fault must
be one task's error, the program first goes on with the rest, and raises that error at its end. So
its last line is what a caller meets: `outcome: right`, `outcome: error: …`, or `outcome: wrong: …`
if it was answered, but with the wrong thing. tools/faults.py sees to those that say nothing at all.
"""

import contextlib
import importlib
import io
import logging
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time

# number → (what happens, the program)
FAULTS = {}
# The programs that must end by a signal.
ENDS_BY = {11: signal.SIGKILL, 12: signal.SIGINT}


class Wrong(Exception):
    """An answer came, but not the right one."""


def fault(number, what):
    def keep(program):
        FAULTS[number] = (what, program)
        return program

    return keep


def expect(right, what):
    if not right:
        raise Wrong(what)


# What the programs share


def kill_me(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_three(x):
    return kill_me() if x == 3 else x


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@contextlib.contextmanager
def lives_on(pool):
    """Whatever happens in the block, the pool can be used after it."""
    try:
        yield
    finally:
        expect(pool.map(abs, [-1, -2, -3]) == [1, 2, 3], "the pool's next results")


def each_fails(calls):
    """Each of the calls must raise; the last error is raised on."""
    errors = []
    for name, call in calls:
        try:
            call()
        except Exception as error:
            errors.append(error)
        else:
            raise Wrong(f"{name} raised nothing")
    raise errors[-1]


def await_asleep(pid):
    """Wait until a process has used no processor time for a while: it waits for something."""

    def used():
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], fields[11:13]

    seen, quiet = used(), 0
    while quiet < 20:
        time.sleep(0.01)
        before, seen = seen, used()
        quiet = quiet + 1 if before == seen and seen[0] == "S" else 0


def descendants(pid):
    parents = {}
    for one in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{one}/stat") as file:
            parents[int(one)] = int(file.read().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


# Pools


@fault(1, "a worker is SIGKILLed in `map`")
def killed_in_map(mp):
    with mp.Pool(2) as pool, lives_on(pool):
        pool.map(die_at_three, range(8))


@fault(2, "the same in `apply_async` with callbacks, and in `imap_unordered`")
def killed_in_other_calls(mp):
    with mp.Pool(2) as pool:
        errors, told = [], threading.Event()
        later = pool.apply_async(
            kill_me, error_callback=lambda error: (errors.append(error), told.set())
        )
        later.wait()
        told.wait()
        results, rest = [], pool.imap_unordered(die_at_three, range(8))
        while True:
            try:
                results.append(next(rest))
            except StopIteration:
                break
            except Exception as error:
                errors.append(error)
        expect(sorted(results) == [0, 1, 2, 4, 5, 6, 7], f"the other results are {results}")
        expect(len(errors) == 2, f"{len(errors)} errors for 2 tasks")
        raise errors[1]


def end_by(how):
    {
        "abort": os.abort,
        "segfault": lambda: signal.raise_signal(signal.SIGSEGV),
        "sys.exit": lambda: sys.exit(3),
        "os._exit": lambda: os._exit(3),
    }[how]()


@fault(3, "a task calls `os._exit`, `sys.exit`, aborts, or segfaults")
def tasks_that_end_their_worker(mp):
    with mp.Pool(2) as pool, lives_on(pool):
        ways = ("abort", "segfault", "sys.exit", "os._exit")
        each_fails((how, lambda how=how: pool.apply(end_by, (how,))) for how in ways)


def need_memory():
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
    try:
        return len(bytearray(2 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@fault(4, "a task reaches its RLIMIT_AS; another is killed for want of memory (a SIGKILL)")
def no_memory_for_a_task(mp):
    with mp.Pool(2) as pool, lives_on(pool):
        try:
            pool.apply(need_memory)
        except MemoryError:
            pass
        else:
            raise Wrong("no MemoryError")
        pool.apply(kill_me)


class TwoArguments(Exception):
    """Its pickle cannot be loaded: `__init__` is called with one argument."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_two_arguments():
    raise TwoArguments(1, 2)


def return_lock():
    return threading.Lock()


@fault(5, "an argument or a result that does not pickle; an exception that does not unpickle")
def what_does_not_pickle(mp):
    with mp.Pool(2) as pool, lives_on(pool):
        each_fails(
            [
                ("an argument", lambda: pool.apply(abs, (threading.Lock(),))),
                ("a result", lambda: pool.apply(return_lock)),
                ("an exception", lambda: pool.apply(raise_two_arguments)),
            ]
        )


def bad_start():
    raise ValueError("the initializer fails")


@fault(6, "a pool's initializer raises")
def failing_initializer(mp):
    with mp.Pool(2, initializer=bad_start) as pool:
        pool.map(abs, range(4))


# Locks


def hold_and_die(lock):
    lock.acquire()
    kill_me()


@fault(7, "the holder of a Lock is SIGKILLed, another process acquires it")
def killed_holder(mp):
    lock = mp.Lock()
    holder = mp.Process(target=hold_and_die, args=(lock,))
    holder.start()
    holder.join()
    try:
        with lock:
            pass
    finally:
        expect(lock.acquire(timeout=1), "the lock is free afterwards")


def wait_in(condition, pipe):
    with condition:
        pipe.send("holds the condition")
        condition.wait()


@fault(8, "a waiter of a Condition is SIGKILLed, then `notify_all`")
def killed_waiter(mp):
    condition = mp.Condition()
    waiters = []
    for _ in range(2):
        mine, its = mp.Pipe()
        waiters.append(mp.Process(target=wait_in, args=(condition, its)))
        waiters[-1].start()
        mine.recv()
        # Who gets the lock now gets it from the waiter, which waits.
        with condition:
            pass
    kill(waiters[0])
    with condition:
        condition.notify_all()
    waiters[1].join()


# Queues


def say_and_put(pipe, q, item):
    pipe.send("putting")
    q.put(item)
    signal.pause()


@fault(9, "producers are SIGKILLed in the middle of a 50 MB put; the next one puts")
def killed_producers(mp):
    q, large = mp.Queue(), bytes(50 << 20)
    # One while it copies or pickles, one when it can go no further.
    for when in (lambda pid: None, await_asleep):
        mine, its = mp.Pipe()
        producer = mp.Process(target=say_and_put, args=(its, q, large))
        producer.start()
        mine.recv()
        when(producer.pid)
        kill(producer)
    producer = mp.Process(target=put_all, args=(q, ["next"]))
    producer.start()
    while (item := q.get()) != "next":
        expect(item == large, "a cut message")
    producer.join()


def get(q):
    q.get()


@fault(10, "a consumer is SIGKILLed in `get`; another one gets")
def killed_consumer(mp):
    q = mp.Queue()
    consumer = mp.Process(target=get, args=(q,))
    consumer.start()
    await_asleep(consumer.pid)
    kill(consumer)
    q.put("a")
    expect(q.get() == "a", "another item")


def say_and_sleep(q):
    q.put("busy")
    time.sleep(600)


@fault(11, "the root is SIGKILLed: a busy pool, children blocked in `get`, a manager")
def killed_root(mp):
    said, nothing = mp.Queue(), mp.Queue()
    blocked = [mp.Process(target=get, args=(nothing,), daemon=daemon) for daemon in (False, True)]
    for child in blocked:
        child.start()
        await_asleep(child.pid)
    manager = mp.Manager()
    shared = manager.list()
    shared.append(1)
    busy = mp.Process(target=say_and_sleep, args=(said,))
    busy.start()
    pool = mp.Pool(2)
    pool.apply(abs, (1,))
    later = pool.map_async(time.sleep, [600, 600], chunksize=1)
    said.get()
    kill_me(later)


def meet_and_sleep(path):
    open(path, "w").close()
    time.sleep(600)


@fault(12, "Ctrl-C in `map`")
def interrupted_map(mp):
    folder = os.environ.get("TMPDIR", "/tmp")
    marks = [os.path.join(folder, f"task-{os.getpid()}-{n}") for n in range(2)]

    def interrupt():
        while not all(map(os.path.exists, marks)):
            time.sleep(0.01)
        for mark in marks:
            os.unlink(mark)
        os.killpg(0, signal.SIGINT)

    with mp.Pool(2) as pool:
        threading.Thread(target=interrupt).start()
        pool.map(meet_and_sleep, marks, chunksize=1)


def put_all(q, items):
    for item in items:
        q.put(item)


@fault(13, "join before drain: one item of 50 MB, 20 000 small ones")
def join_before_drain(mp):
    for items in ([bytes(50 << 20)], range(20_000)):
        q = mp.Queue()
        producer = mp.Process(target=put_all, args=(q, items))
        producer.start()
        producer.join()
        for item in items:
            expect(q.get() == item, "the items")


def zeros(size):
    return bytes(size)


@fault(14, "a large message through Queue and Pool (100 MB here, 3 GiB in the tests)")
def large_message(mp):
    size = 100 << 20
    q = mp.Queue()
    producer = mp.Process(target=put_all, args=(q, [bytes(size)]))
    producer.start()
    expect(len(q.get()) == size, "the message's size")
    producer.join()
    with mp.Pool(1) as pool:
        expect(len(pool.apply(zeros, (size,))) == size, "the result's size")


# Processes


def noop(*_):
    pass


@fault(15, "many objects come and go (1 000 cycles, 20 processes, 5 pools)")
def many_cycles(mp):
    def cycle(times):
        for _ in range(times):
            objects = [mp.Lock(), mp.Queue(), mp.Event(), mp.Value("i", 1), *mp.Pipe()]
            objects[1].put(1)
            objects[1].get()
            objects[1].close()
            objects[1].join_thread()
        for _ in range(max(1, times // 200)):
            children = [mp.Process(target=noop) for _ in range(4)]
            for child in children:
                child.start()
            for child in children:
                child.join()
            with mp.Pool(2) as pool:
                pool.map(abs, range(4))
            pool.join()

    def held():
        return len(os.listdir("/proc/self/fd")), threading.active_count(), len(mp.active_children())

    cycle(20)
    before = held()
    cycle(1000)
    expect(held() == before, f"descriptors, threads, children: {before} before, {held()} after")


def log_and_use(lock, q, number):
    for _ in range(20):
        with lock:
            pass
        q.put(number)
        q.get()
        logging.info("number %d", number)


@fault(16, "fork while other threads hold locks, log, and use queues")
def fork_beside_threads(mp):
    stream = io.TextIOWrapper(open(os.devnull, "wb", buffering=0), write_through=True)
    logging.basicConfig(stream=stream, level=logging.INFO)
    lock, q, stop = mp.Lock(), mp.Queue(), threading.Event()

    def busy(number):
        while not stop.is_set():
            log_and_use(lock, q, number)

    threads = [threading.Thread(target=busy, args=(n,), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        child = mp.Process(target=log_and_use, args=(lock, q, number))
        child.start()
        child.join()
        expect(child.exitcode == 0, f"a child's exit code is {child.exitcode}")
    stop.set()
    for thread in threads:
        thread.join()


def nested(module, method, depth):
    if depth == 0:
        return 1
    with importlib.import_module(module).get_context(method).Pool(1) as pool:
        return 1 + pool.apply(nested, (module, method, depth - 1))


@fault(17, "pools in pool workers, three deep")
def pools_in_workers(mp):
    expect(nested(mp.module, mp.get_start_method(), 3) == 4, "the depth")


def recurse(n=0):
    return recurse(n + 1) + 1


def deep_result():
    inner = []
    for _ in range(200_000):
        inner = [inner]
    return inner


def large_exception():
    raise ValueError("x" * (20 << 20))


def long_chain(n=300):
    try:
        if n:
            long_chain(n - 1)
    finally:
        raise ValueError(f"number {n}")


def interrupt_myself():
    raise KeyboardInterrupt


class Wrapped(Exception):
    """A KeyboardInterrupt that a task has raised, as an Exception to collect."""


@fault(18, "RecursionError, a deep result, a large exception, a chain of 300, KeyboardInterrupt")
def strange_exceptions(mp):
    with mp.Pool(2) as pool, lives_on(pool):

        def interrupted():
            try:
                pool.apply(interrupt_myself)
            except KeyboardInterrupt as error:
                raise Wrapped("KeyboardInterrupt, the task's own") from error

        tasks = (large_exception, recurse, deep_result, long_chain)
        calls = [(task.__name__, lambda task=task: pool.apply(task)) for task in tasks]
        try:
            each_fails([*calls, ("interrupt_myself", interrupted)])
        except Wrapped:
            return


kept = None


def keep_barrier(barrier):
    global kept
    kept = barrier


def pid_at_barrier(_):
    kept.wait()
    return os.getpid()


@fault(19, "all idle workers are SIGKILLed, then work is submitted; then `terminate`")
def killed_idle_workers(mp):
    barrier = mp.Barrier(2)
    with mp.Pool(2, initializer=keep_barrier, initargs=(barrier,)) as pool:
        pids = pool.map(pid_at_barrier, range(2), chunksize=1)
        for pid in pids:
            await_asleep(pid)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        expect(pool.map(abs, [-1, -2]) == [1, 2], "the results")
        pool.terminate()
        pool.join()


def large_result(_):
    return bytes(1 << 20)


def breaks_half_way():
    yield from range(5)
    raise ValueError("half-way")


@fault(20, "an iterable raises half-way; `terminate` with everything full")
def full_and_broken(mp):
    with mp.Pool(2) as pool:
        results = pool.imap(abs, breaks_half_way())
        expect([next(results) for _ in range(5)] == [0, 1, 2, 3, 4], "the results before it")
        try:
            next(results)
        except ValueError:
            pass
        else:
            raise Wrong("the iterable's error is gone")
        later = [pool.apply_async(large_result, (bytes(1 << 16),)) for _ in range(500)]
        later[0].wait()
        pool.terminate()
        pool.join()


@fault(21, "misuse: start twice, use after close, release unlocked, send to a dead reader")
def misuse(mp):
    def refused(kinds, call, *args):
        try:
            call(*args)
        except kinds:
            return
        raise Wrong(f"{call} was not refused")

    child = mp.Process(target=noop)
    child.start()
    refused(AssertionError, child.start)
    child.join()
    refused(ValueError, mp.Lock().release)
    refused(AssertionError, mp.RLock().release)
    q = mp.Queue()
    q.close()
    refused(ValueError, q.put, 1)
    refused(ValueError, q.get)
    reader, writer = mp.Pipe(duplex=False)
    reader.close()
    refused(BrokenPipeError, writer.send, 1)
    with mp.Pool(1) as pool:
        refused(ValueError, pool.join)
        pool.close()
        refused(ValueError, pool.apply, abs, (1,))


@fault(22, "all helper processes are SIGKILLed; then a manager's dict and a new process")
def killed_helpers(mp):
    manager = mp.Manager()
    shared = manager.dict(a=1)
    child = mp.Process(target=noop)
    child.start()
    child.join()
    for pid in descendants(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    child = mp.Process(target=noop)
    child.start()
    child.join()
    expect(child.exitcode == 0, f"the next child's exit code is {child.exitcode}")
    expect(shared["a"] == 1, "the dict's value")


@fault(23, "no file descriptors left; a limit on the size of files")
def no_resources(mp):
    def refused_then_right(limit, value, make, use):
        before = resource.getrlimit(limit)
        resource.setrlimit(limit, (value, before[1]))
        try:
            use(make())
        except (OSError, MemoryError):
            pass
        finally:
            resource.setrlimit(limit, before)
        use(make())

    def use_queue(q):
        q.put(1)
        expect(q.get() == 1, "the item")

    def use_pool(pool):
        with pool:
            expect(pool.map(abs, [-1]) == [1], "the result")

    open_now = max(map(int, os.listdir("/proc/self/fd")))
    for make, use in ((mp.Queue, use_queue), (lambda: mp.Pool(4), use_pool)):
        refused_then_right(resource.RLIMIT_NOFILE, open_now + 1, make, use)
    refused_then_right(resource.RLIMIT_FSIZE, 4096, lambda: mp.Array("d", 1 << 20), len)


# Strangers


def write_garbage(q, done):
    """Random bytes into all that this process shares with others but its standard streams."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{fd}")
            if fd <= 2:
                continue
            # Shared memory has no name by now; a file that has one is a stranger's.
            if kind.endswith(" (deleted)"):
                for offset in range(0, min(os.fstat(fd).st_size, 16 << 20), 4096):
                    os.pwrite(fd, os.urandom(4096), offset)
            elif not kind.startswith("/") and select.select([], [fd], [], 0)[1]:
                os.write(fd, os.urandom(4096))
    os._exit(0)


@fault(24, "a child writes garbage over all that it shares; then a queue and a lock are used")
def garbage(mp):
    q, lock = mp.Queue(), mp.Lock()
    q.put("a")
    q.get()
    child = mp.Process(target=write_garbage, args=(q, lock))
    child.start()
    child.join()
    with lock:
        q.put("a")
        expect(q.get() == "a", "another item")


class Marks:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@fault(25, "strange clients at a manager's address: a pickle, a length of 2 GiB, silence")
def strange_clients(mp):
    managers = importlib.import_module(mp.module + ".managers")
    manager = managers.SyncManager(authkey=b"right", ctx=mp)
    manager.start()
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"unpickled-{os.getpid()}")
    body = pickle.dumps(Marks(path))
    clients = []
    for first in (struct.pack("!i", len(body)) + body, struct.pack("!i", 0x7FFFFFFF), b""):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(manager.address)
        clients[-1].sendall(first)
    shared = manager.dict(a=1)
    expect(shared["a"] == 1, "the dict's value")
    expect(not os.path.exists(path), "a stranger's pickle was loaded")


def main():
    number, module, method = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mp = importlib.import_module(module).get_context(method)
    mp.module = module
    try:
        FAULTS[int(number)][1](mp)
        outcome = "right"
    except Wrong as error:
        outcome = f"wrong: {error}"
    except Exception as error:
        first = str(error).partition("\n")[0]
        outcome = f"error: {type(error).__name__}{': ' if first else ''}{first}"
    print("outcome:", outcome, flush=True)


if __name__ == "__main__":
    main()
