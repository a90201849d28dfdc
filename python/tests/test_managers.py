"""Managers: what they hand out, how it travels, what is left after a shutdown or a kill."""

import array
import copy
import gc
import os
import pickle
import queue
import signal
import threading
import time
from multiprocessing import managers as standard

import pytest

import tenfold
from tenfold import _native, managers

EVERYTHING = [
    ("dict", ({"a": 1},)),
    ("list", ([1, 2],)),
    ("Namespace", ()),
    ("Value", ("i", 1)),
    ("Array", ("i", [1, 2])),
    ("Lock", ()),
    ("RLock", ()),
    ("Semaphore", (2,)),
    ("BoundedSemaphore", (2,)),
    ("Condition", ()),
    ("Event", ()),
    ("Barrier", (2,)),
    ("Queue", ()),
    ("JoinableQueue", (3,)),
]


@pytest.fixture
def manager():
    with tenfold.Manager() as manager:
        yield manager


def in_child(method, function, *args, status=0):
    process = tenfold.get_context(method).Process(target=function, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == status
    process.close()


def kill_child(method, function, *args):
    """Run `function(ready, *args)` in a child and kill it once it has set `ready`."""
    context = tenfold.get_context(method)
    ready = context.Event()
    process = context.Process(target=function, args=(ready, *args))
    process.start()
    assert ready.wait(60)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_no_process_is_started(manager):
    for name, args in EVERYTHING:
        getattr(manager, name)(*args)
    assert tenfold.active_children() == []
    assert manager._process is None


@pytest.mark.parametrize(("name", "args"), EVERYTHING)
def test_proxies_are_the_standard_librarys(manager, name, args):
    proxy = getattr(manager, name)(*args)
    expected = standard.SyncManager._registry[name][-1]
    base = expected if isinstance(expected, type) else standard.BaseProxy
    assert isinstance(proxy, base)
    assert f"typeid '{name}' at 0x" in repr(proxy)
    assert proxy._token.typeid == name


def fill(everything):
    everything["dict"]["b"] = 2
    everything["list"].append(3)
    everything["Namespace"].x = "y"
    everything["Value"].value += 1
    everything["Array"][0] = 9
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"):
        with everything[name]:
            pass
    everything["Event"].set()
    everything["Queue"].put([everything["dict"]])
    everything["JoinableQueue"].put(1)
    everything["Barrier"].wait()


def test_everything_is_shared(manager, method):
    everything = {name: getattr(manager, name)(*args) for name, args in EVERYTHING}
    process = tenfold.get_context(method).Process(target=fill, args=(everything,))
    process.start()
    assert everything["Barrier"].wait(60) in (0, 1)
    process.join(60)
    assert process.exitcode == 0
    assert everything["dict"].copy() == {"a": 1, "b": 2}
    assert everything["list"][:] == [1, 2, 3]
    assert str(everything["Namespace"]) == "Namespace(x='y')"
    assert str(everything["Value"]) == "Value('i', 2)"
    assert everything["Array"]._getvalue() == array.array("i", [9, 2])
    assert everything["Event"].is_set()
    (received,) = everything["Queue"].get(timeout=60)
    received["c"] = 3
    assert everything["dict"]["c"] == 3
    everything["JoinableQueue"].get()
    everything["JoinableQueue"].task_done()
    everything["JoinableQueue"].join()


def test_proxies_travel_by_a_pipe(manager, method):
    context = tenfold.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=pass_back, args=(there,))
    process.start()
    shared, lock = manager.dict(), manager.Lock()
    here.send((shared, lock))
    assert here.poll(60)
    again, again_lock = here.recv()
    process.join(60)
    assert again["seen"] is True
    assert shared["seen"] is True
    assert again_lock.acquire(False) is False
    lock.release()


def pass_back(connection):
    shared, lock = connection.recv()
    lock.acquire()
    shared["seen"] = True
    connection.send((shared, lock))


def test_a_proxy_in_a_container_comes_back_alive(manager):
    outer, inner = manager.dict(), manager.list([1])
    outer["inner"] = inner
    outer["deep"] = {"in": (inner, manager.Queue())}
    del inner
    gc.collect()
    outer["inner"].append(2)
    assert outer["deep"]["in"][0][:] == [1, 2]
    outer["deep"]["in"][1].put("x")
    assert outer["deep"]["in"][1].get() == "x"
    listed = manager.list([outer])
    del outer
    assert listed[0]["inner"].pop() == 2
    assert listed[0].pop("inner").pop() == 1


def test_copies_are_of_the_value(manager):
    shared = manager.dict(a=[1])
    assert copy.deepcopy(shared) == {"a": [1]}
    again = copy.copy(shared)
    again["b"] = 2
    assert shared["b"] == 2
    assert shared._getvalue() == {"a": [1], "b": 2}


def test_callmethod(manager):
    shared = manager.dict(a=1)
    assert shared._callmethod("get", ("a",)) == 1
    assert shared._callmethod("#GETVALUE") == {"a": 1}
    assert shared._callmethod("__repr__") == "{'a': 1}"
    with pytest.raises(standard.RemoteError):
        shared._callmethod("_create")
    names = manager.Namespace(x=1)
    names._callmethod("__setattr__", ("get", 2))
    assert names._callmethod("__getattribute__", ("get",)) == 2


def test_namespace(manager):
    names = manager.Namespace(x=1)
    names.items, names._own = [2], 3
    assert (names.x, names.items, names._own) == (1, [2], 3)
    del names.x
    assert not hasattr(names, "x")
    with pytest.raises(AttributeError):
        del names.x
    assert str(names) == "Namespace(items=[2])"
    assert not hasattr(pickle.loads(pickle.dumps(names)), "_own")


def test_array(manager):
    shared = manager.Array("d", [1.5, 2.5, 3.5])
    assert list(shared) == [1.5, 2.5, 3.5]
    assert len(shared) == 3
    assert shared[-1] == 3.5
    assert shared[:2] == array.array("d", [1.5, 2.5])
    assert shared[::-2] == array.array("d", [3.5, 1.5])
    shared[1:] = array.array("d", [7, 8])
    shared[::2] = array.array("d", [0, 9])
    assert shared._getvalue() == array.array("d", [0, 7, 9])
    for index, error in ((3, IndexError), (-4, IndexError), ("x", TypeError)):
        with pytest.raises(error):
            shared[index]
    with pytest.raises(TypeError):
        shared[0:1] = [1]
    with pytest.raises(ValueError, match="length"):
        shared[0:1] = array.array("d", [1, 2])
    for typecode, beyond in zip("bBhHiIlLqQ", (7, 8, 15, 16, 31, 32, 63, 64, 63, 64), strict=True):
        ints = manager.Array(typecode, [0])
        ints[0] = 2**beyond - 1
        assert ints[0] == 2**beyond - 1
        with pytest.raises(OverflowError):
            ints[0] = 2**beyond
    text = manager.Array("u", "añ€")
    text[0] = "𝄞"
    assert "".join(text) == "𝄞ñ€"
    with pytest.raises(ValueError, match="typecode"):
        manager.Array("x", [])


def test_locks_raise_threadings_errors(manager):
    lock, rlock = manager.Lock(), manager.RLock()
    for one in (lock, rlock):
        with pytest.raises(RuntimeError):
            one.release()
        thread = threading.Thread(target=one.acquire)
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="non-blocking"):
            one.acquire(False, 1)
        with pytest.raises(RuntimeError):
            rlock.release()
    assert lock.acquire(True, 0.05) is False
    assert lock.acquire(timeout=0) is False
    with pytest.raises(ValueError, match="negative"):
        lock.acquire(timeout=-2)
    with pytest.raises(OverflowError):
        lock.acquire(timeout=1e20)
    with pytest.raises(ValueError, match="too many"):
        manager.BoundedSemaphore(1).release()
    with pytest.raises(ValueError, match=">= 0"):
        manager.Semaphore(-1)
    condition = manager.Condition()
    for call in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(RuntimeError):
        condition.release()


def test_condition_on_a_lock_of_the_manager(manager, method):
    lock = manager.Lock()
    condition = manager.Condition(lock)
    waiting = manager.Event()
    process = tenfold.get_context(method).Process(target=wait_for, args=(lock, condition, waiting))
    process.start()
    assert waiting.wait(60)
    with lock:
        condition.notify()
    process.join(60)
    assert process.exitcode == 0


def wait_for(lock, condition, waiting):
    with lock:
        waiting.set()
        assert condition.wait(60)


def test_queue_raises_queues_errors(manager):
    bounded = manager.Queue(1)
    with pytest.raises(queue.Empty):
        bounded.get(timeout=0.05)
    bounded.put("x")
    with pytest.raises(queue.Full):
        bounded.put_nowait("y")
    with pytest.raises(ValueError, match="negative"):
        bounded.get(timeout=-1)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        manager.Queue().put(threading.Lock())
    with pytest.raises(ValueError, match="too many"):
        bounded.task_done()
        bounded.task_done()


def test_life_of_a_manager():
    manager = managers.SyncManager()
    with pytest.raises(AssertionError):
        manager.dict()
    assert not hasattr(manager, "shutdown")
    with pytest.raises(TypeError):
        manager.start(1)
    manager.start()
    with pytest.raises(tenfold.ProcessError, match="Already started"):
        manager.start()
    with pytest.raises(tenfold.ProcessError, match="Already started"):
        manager.get_server()
    with manager as same:
        assert same is manager
        shared = manager.dict()
    for again in (manager.start, manager.get_server, manager.__enter__):
        with pytest.raises(tenfold.ProcessError, match="shut down"):
            again()
    with pytest.raises(AssertionError):
        manager.dict()
    with pytest.raises(OSError, match="shut down"):
        len(shared)
    manager.shutdown()
    manager.join()


def test_proxies_raise_after_the_shutdown(method):
    manager = tenfold.Manager()
    proxies = {name: getattr(manager, name)(*args) for name, args in EVERYTHING}
    context = tenfold.get_context(method)
    ready, event = context.Event(), context.Event()
    process = context.Process(target=use_after_shutdown, args=(proxies, ready, event))
    process.start()
    assert ready.wait(60)
    manager.shutdown()
    event.set()
    process.join(60)
    assert process.exitcode == 0
    for name, proxy in proxies.items():
        with pytest.raises(OSError, match="shut down"):
            USES[name](proxy)


USES = {
    "dict": len,
    "list": len,
    "Namespace": lambda names: names.x,
    "Value": lambda value: value.value,
    "Array": len,
    "Event": lambda event: event.is_set(),
    "Barrier": lambda barrier: barrier.parties,
    "Queue": lambda queue: queue.qsize(),
    "JoinableQueue": lambda queue: queue.qsize(),
    **dict.fromkeys(
        ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"], lambda lock: lock.acquire()
    ),
}


def use_after_shutdown(proxies, ready, event):
    ready.set()
    assert event.wait(60)
    for name, proxy in proxies.items():
        try:
            USES[name](proxy)
        except OSError:
            continue
        raise AssertionError(f"{name} raises no error")


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "Event", "Barrier", "Queue"])
def test_a_shutdown_wakes_who_waits(name):
    manager = tenfold.Manager()
    waits = {
        "Event": lambda event: event.wait(),
        "Barrier": lambda barrier: barrier.wait(),
        "Queue": lambda queue: queue.get(),
    }
    proxy = getattr(manager, name)(*dict(EVERYTHING)[name])
    if name not in waits:
        process = tenfold.Process(target=take_all, args=(proxy,))
        process.start()
        process.join(60)
    raised = []

    def wait():
        try:
            waits.get(name, lambda lock: lock.acquire())(proxy)
        except Exception as error:
            raised.append(error)

    count = 1 if name == "Barrier" else 3
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    manager.shutdown()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(raised) == len(threads)


def take_all(lock):
    # An RLock can be taken again and again.
    for _ in range(100):
        if not lock.acquire(False):
            break
    os._exit(0)


def live():
    gc.collect()
    return _native.heap_stats().get("bytes_live", 0)


def test_memory_goes_back():
    tenfold.Manager().shutdown()
    before = live()
    for _ in range(3):
        manager = tenfold.Manager()
        for name, args in EVERYTHING:
            getattr(manager, name)(*args)
        kept = manager.dict(dict.fromkeys(range(1000), "x" * 1000))
        cycle = manager.list()
        cycle.append(cycle)
        cycle.append("y" * 100_000)
        assert live() > before + 1_000_000
        del cycle
        manager.shutdown()
        assert live() < before + 100_000
        del kept, manager
        assert live() == before
    shared = tenfold.Manager().dict()
    for round in range(3):
        shared.update({n: [round] * 100 for n in range(1000)})
        shared.clear()
    del shared
    assert live() == before


def test_a_class_that_is_registered_has_a_server(method):
    manager = Registered(ctx=tenfold.get_context(method))
    manager.start()
    try:
        assert manager._process is not None
        shared = manager.dict()
        counter = manager.Counter(shared)
        process = tenfold.get_context(method).Process(target=count, args=(counter,))
        process.start()
        process.join(60)
        assert counter.count() == 2
        assert shared["count"] == 2
        assert isinstance(shared, managers.DictProxy)
        assert manager.plain()["a"] == 1
        assert type(manager.plain()) is standard.DictProxy
    finally:
        manager.shutdown()
    assert tenfold.active_children() == []


class Counter:
    def __init__(self, shared):
        self.shared = shared
        self.value = 0

    def count(self):
        self.value += 1
        self.shared["count"] = self.value
        return self.value


class Registered(managers.SyncManager):
    pass


Registered.register("Counter", Counter)


def plain():
    return {"a": 1}


Registered.register("plain", plain, managers.DictProxy)


def count(counter):
    counter.count()


def square(x):
    return x * x


def test_pool_of_a_manager(manager):
    assert manager._process is None
    pool = manager.Pool(2)
    assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert manager._process is not None
    shared = manager.dict()
    pool.apply(fill_one, (shared,))
    assert shared["one"] == 1
    pool.terminate()


def fill_one(shared):
    shared["one"] = 1


def test_a_manager_with_an_address_is_the_standard_librarys():
    server = managers.SyncManager(address=("127.0.0.1", 0), authkey=b"key")
    server.start()
    try:
        shared = server.dict(a=1)
        assert type(shared) is standard.DictProxy
        client = managers.SyncManager(address=server.address, authkey=b"key")
        client.connect()
        assert client.list([1, 2])[:] == [1, 2]
    finally:
        server.shutdown()
    assert tenfold.active_children() == []


def test_the_address_starts_a_server(manager):
    shared = manager.dict(a=1)
    assert isinstance(manager.address, str)
    client = managers.SyncManager(address=manager.address, authkey=manager._authkey)
    client.connect()
    assert client.dict(b=2)["b"] == 2
    assert shared["a"] == 1


def test_another_program_cannot_use_a_proxy(manager, python):
    pickled = pickle.dumps((manager.dict(), manager.Lock()))
    out = python(
        f"""
import pickle, tenfold
tenfold.Manager().dict()
try:
    pickle.loads({pickled!r})
except ValueError as error:
    print(error)
"""
    )
    assert "another program" in out


def write_until_killed(ready, shared, listed):
    ready.set()
    n = 0
    while True:
        n += 1
        shared[n % 100] = [n] * (n % 200)
        shared.pop((n * 7) % 100, None)
        listed.append("x" * (n % 500))
        if n % 50 == 0:
            listed.sort()
            del listed[::3]
            shared.update({(k, "t"): n for k in range(20)})


def test_a_killed_writer_leaves_everything_usable(manager, method):
    shared, listed = manager.dict(), manager.list()
    for _ in range(4):
        kill_child(method, write_until_killed, shared, listed)
        items = shared.items()
        assert len(items) == len(shared)
        assert all(type(value) in (int, list) for _, value in items)
        assert all(type(item) is str for item in listed[:])
        shared["after"], _ = 1, listed.append("after")
        assert shared.pop("after") == 1
        assert listed.pop() == "after"
    shared.clear()
    listed.clear()


def hold(ready, lock):
    lock.acquire()
    ready.set()
    time.sleep(1000)


def test_a_killed_holder_is_told_of_once(manager, method):
    lock = manager.Lock()
    kill_child(method, hold, lock)
    with pytest.raises(_native.OwnerDied):
        lock.acquire()
    assert lock.acquire(timeout=5)


def add_many(shared, times):
    for _ in range(times):
        key = Odd(1)
        shared.setdefault(key, 0)
        shared.update({Odd(2): 1, "x": 1})
        shared[Odd(3)] = 3
        shared.pop(Odd(3), None)


class Odd:
    """A key that no plain value equals."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Odd) and other.number == self.number

    def __hash__(self):
        return hash(self.number)


def test_equal_keys_of_several_processes_are_one(manager, method):
    shared = manager.dict()
    context = tenfold.get_context(method)
    processes = [context.Process(target=add_many, args=(shared, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    assert len(shared) == 3
    assert {key.number for key in shared if key != "x"} == {1, 2}


def test_iteration_hears_of_changes(manager, method):
    shared = manager.dict({n: n for n in range(100)})
    iterator = iter(shared)
    assert next(iterator) == 0
    shared[5] = "a change of a value is none of size"
    assert next(iterator) == 1
    in_child(method, shared.update, {"new": 1})
    with pytest.raises(RuntimeError, match="changed size"):
        next(iterator)
    assert list(iter(manager.dict())) == []
