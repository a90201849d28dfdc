"""Value, Array and their raw forms: ctypes objects in memory that processes share."""

import array
import ctypes
import gc
import os
import pickle
import resource
import signal
import time

import pytest
from companions import LONG, in_thread
from hypothesis import given, settings
from hypothesis import strategies as st

import tenfold
from tenfold import _native, sharedctypes

CODES = "bBhHiIlLqQfd"
MIB = 1 << 20
LITTLE = 1 << 16


def live():
    """Bytes of the shared heap in use, but for a few: processes on record, queues that are kept."""
    gc.collect()
    return _native.heap_stats().get("bytes_live", 0) // LITTLE * LITTLE


@pytest.fixture(autouse=True)
def memory_comes_back():
    tenfold.RawValue("i")
    before = live()
    yield
    deadline = time.monotonic() + 10
    while live() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live() == before


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_int)]


class OwnInt(ctypes.c_int):
    """No plain int to ctypes: elements of its arrays are objects of this class."""


class NativeLock(_native.RLock):
    """A lock of the engine's."""

    def __init__(self):
        self._create()


def locks():
    """Return an argument `lock=` of each kind."""
    return [True, tenfold.Lock(), tenfold.RLock(), NativeLock()]


@pytest.mark.parametrize("code", CODES)
def test_values_of_each_type(code):
    for lock in locks():
        value = tenfold.Value(code, 5, lock=lock)
        assert type(value) is sharedctypes.Synchronized
        assert value.value == 5
        value.value += 2
        assert value.value == 7
        assert type(value.value) is type(value.get_obj().value)
        assert value.get_obj().value == 7
        value.get_obj().value = 9
        assert value.value == 9
        assert type(value.get_obj()) is sharedctypes.typecode_to_type[code]


@pytest.mark.parametrize("lock", [True, False, NativeLock])
@pytest.mark.parametrize("code", CODES)
def test_stores_and_errors_are_those_of_ctypes(code, lock):
    ours = tenfold.Value(code, lock=lock() if lock is NativeLock else lock)
    theirs = sharedctypes.typecode_to_type[code]()
    many = tenfold.Array(code, 2, lock=lock() if lock is NativeLock else lock)
    many_of_theirs = (sharedctypes.typecode_to_type[code] * 2)()
    values = [
        0,
        1,
        -1,
        127,
        128,
        255,
        256,
        2**31,
        -(2**31) - 1,
        2**32,
        2**63,
        2**64,
        -(2**70),
        True,
    ]
    for value in [*values, 1.5, -0.0, 1e300, float("inf"), "1", None, b"1", [], 1j, OwnInt(3)]:
        results = []
        for one, several in ((ours, many), (theirs, many_of_theirs)):
            result = []
            try:
                one.value = value
                several[1] = value
                result.append(repr(several[1]))
            except Exception as error:
                result.append((type(error), str(error)))
            result += [repr(one.value), repr(list(several[:]))]
            results.append(result)
        assert results[0] == results[1], value


class Index:
    """Not an int, but usable as one."""

    def __index__(self):
        return 4


class Sequence:
    """Not a list, and it fails in the middle."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 2:
            raise RuntimeError("no more")
        return index


TYPES = [
    *(sharedctypes.typecode_to_type[code] for code in CODES),
    ctypes.c_bool,
    ctypes.c_char,
    ctypes.c_wchar,
    ctypes.c_int.__ctype_be__,
    ctypes.c_int16.__ctype_be__,
    ctypes.c_double.__ctype_be__,
    OwnInt,
]
indices = st.integers(-8, 8)
slices = st.slices(5) | st.builds(slice, indices | st.none(), indices | st.none())
ints = st.integers(-(2**40), 2**40) | st.integers(-3, 3) | st.integers(-(2**70), 2**70)
plain = ints | st.floats(width=32) | st.booleans()
odd = st.sampled_from([None, b"x", b"xy", "x", "ä", 10**400, Index(), OwnInt(3), True, 1j])
items = plain | odd
sequences = (
    st.lists(ints, max_size=6)
    | st.lists(st.floats(), max_size=6)
    | st.lists(items, max_size=6)
    | st.lists(items, max_size=6).map(tuple)
    | st.integers(0, 5).map(range)
    | st.integers(0, 5).map(lambda count: array.array("h", range(count)))
    | st.binary(max_size=6)
    | st.text(max_size=6)
    | st.sampled_from([3, None, Sequence(), {1, 2}])
)


def outcome(method, *arguments):
    """What a method returns, or the error that it raises, in a form to be compared."""
    try:
        result = method(*arguments)
    except Exception as error:
        return type(error), str(error)
    if isinstance(result, OwnInt):
        return result.value
    return [getattr(one, "value", one) for one in result] if isinstance(result, list) else result


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(TYPES),
    st.lists(
        st.tuples(
            st.just("__getitem__"), indices | slices | st.sampled_from([2**70, -(2**70), True])
        )
        | st.tuples(st.just("__setitem__"), indices, items)
        | st.tuples(st.just("__setitem__"), slices, sequences),
        max_size=12,
    ),
)
def test_arrays_do_as_ctypes_does(type_, steps):
    theirs = (type_ * 5)()
    ours = [tenfold.Array(type_, 5, lock=lock) for lock in (NativeLock(), tenfold.Lock(), False)]
    for step in steps:
        name, *arguments = step
        results = [repr(outcome(getattr(one, name), *arguments)) for one in [theirs, *ours]]
        assert results.count(results[0]) == len(results), (step, results)
        memory = [bytes(getattr(one, "get_obj", lambda one=one: one)()) for one in [theirs, *ours]]
        assert memory.count(memory[0]) == len(memory), step


def test_the_lock_is_held_by_nobody_after_an_element_is_read():
    numbers = tenfold.Array(ctypes.c_bool, 3)
    lock = numbers.get_lock()
    with lock:
        numbers[1] = True
        assert numbers[1] is True
        thread = in_thread(lambda: numbers[1])
        thread.join(0.05)
        assert thread.is_alive()
    thread.join(LONG)
    assert not thread.is_alive()
    assert numbers[:] == [False, True, False]
    with pytest.raises(AssertionError):
        lock.release()


def test_arrays_have_a_length_and_can_be_iterated_over():
    for lock in (True, NativeLock()):
        numbers = tenfold.Array("i", range(10), lock=lock)
        assert len(numbers) == 10
        assert list(numbers) == list(range(10))
        assert 7 in numbers
        assert numbers[-1] == 9
        assert numbers[::-3] == [9, 6, 3, 0]
        numbers[2:5] = array.array("i", [7, 8, 9])
        numbers[5:7] = (1, 2)
        assert numbers[:] == [0, 1, 7, 8, 9, 1, 2, 7, 8, 9]
        with pytest.raises(IndexError, match="invalid index"):
            numbers[10]
        with pytest.raises(IndexError, match="invalid index"):
            numbers[-11] = 3
        with pytest.raises(ValueError, match="same size"):
            numbers[:3] = [1]


def test_strings():
    text = tenfold.Array("c", b"hello world")
    assert type(text) is sharedctypes.SynchronizedString
    assert text.value == b"hello world"
    text.value = b"bye"
    assert text.raw == b"bye\0o world"
    assert text[:3] == b"bye"
    text[0] = b"B"
    assert text[0] == b"B"
    wide = tenfold.Array("u", "äöü")
    assert wide[:] == "äöü"
    wide[1] = "x"
    assert wide.get_obj().value == "äxü"


def test_structures_and_other_types():
    point = tenfold.Value(Point, 1.5, 2)
    assert type(point).__name__ == "SynchronizedPoint"
    assert isinstance(point, sharedctypes.SynchronizedBase)
    assert (point.x, point.y) == (1.5, 2)
    point.y += 1
    assert point.get_obj().y == 3
    points = tenfold.Array(Point, [(1, 2), (3, 4)])
    assert [(p.x, p.y) for p in points] == [(1, 2), (3, 4)]
    points[0].x = 7
    assert points[0].x == 7
    flag = tenfold.Value(ctypes.c_bool, True)
    assert flag.value is True
    own = tenfold.Array(OwnInt, 3, lock=NativeLock())
    assert type(own[0]) is OwnInt
    big_endian = tenfold.Value(ctypes.c_int.__ctype_be__, 1, lock=NativeLock())
    assert big_endian.value == 1
    assert bytes(big_endian.get_obj()) == b"\0\0\0\1"


def test_signatures_and_locks():
    lock = tenfold.Lock()
    assert tenfold.Value("i", lock=lock).get_lock() is lock
    assert tenfold.Array("i", 3, lock=lock).get_lock() is lock
    assert type(tenfold.Value("i").get_lock()) is type(tenfold.RLock())
    raw = tenfold.Value("i", 3, lock=False)
    assert type(raw) is ctypes.c_int
    assert not hasattr(tenfold.Array("i", 3, lock=False), "get_lock")
    for function in (tenfold.Value, tenfold.Array):
        with pytest.raises(AttributeError, match="has no method 'acquire'"):
            function("i", 1, lock="no lock")
    with pytest.raises(TypeError):
        tenfold.Array("i", 3, True)
    with pytest.raises(ValueError):
        tenfold.RawArray("i", -1)
    wrapped = sharedctypes.synchronized(tenfold.RawValue("d", 2.5), lock)
    assert wrapped.value == 2.5
    assert wrapped.get_lock() is lock
    with pytest.raises(AssertionError, match="already synchronized"):
        sharedctypes.synchronized(wrapped)
    # Not in shared memory at all.
    assert sharedctypes.synchronized(ctypes.c_int(4)).value == 4
    with wrapped as held:
        assert held
        assert not lock.acquire(False)
    assert repr(tenfold.Value("i", 3)) == "<Synchronized wrapper for c_int(3)>"


def test_the_lock_is_taken():
    class Counting:
        def __init__(self):
            self.entered = 0

        def acquire(self):
            self.entered += 1

        def release(self):
            pass

        def __enter__(self):
            self.acquire()

        def __exit__(self, *error):
            self.release()

    lock = Counting()
    numbers = tenfold.Array("i", 3, lock=lock)
    numbers[1] = numbers[0]
    assert numbers[:] == [0, 0, 0]
    assert lock.entered == 3

    class Lock(NativeLock):
        entered = 0

        def acquire(self, *args):
            type(self).entered += 1
            return super().acquire(*args)

        def __enter__(self):
            return self.acquire()

    numbers = tenfold.Array("i", 3, lock=Lock())
    numbers[1] = numbers[0]
    assert Lock.entered == 2


def test_copy():
    point = tenfold.RawValue(Point, 1, 2)
    copied = sharedctypes.copy(point)
    point.x = 9
    assert (copied.x, copied.y) == (1, 2)
    numbers = tenfold.RawArray("i", range(5))
    copied = sharedctypes.copy(numbers)
    numbers[0] = 9
    assert copied[:] == [0, 1, 2, 3, 4]
    assert hasattr(copied, "_wrapper")


def test_subclasses():
    class Doubled(sharedctypes.SynchronizedArray):
        def acquire_twice(self):
            return self.acquire() and self.acquire()

    numbers = Doubled(tenfold.RawArray("i", [1, 2, 3]), NativeLock())
    assert numbers[1] == 2
    assert numbers.acquire_twice()
    numbers.release()
    numbers.release()
    assert isinstance(numbers, sharedctypes.std.SynchronizedArray)


def change(values, point, numbers, text, raw, done):
    with values[0].get_lock():
        values[0].value += 1
    values[1].value *= 2
    point.x = -1.0
    for index in range(len(numbers)):
        numbers[index] *= 2
    text.value = b"changed"
    raw[0] = 5
    done.put((list(numbers[:3]), raw))


def test_children_see_the_same_memory(method):
    context = tenfold.get_context(method)
    values = [context.Value("i", 1), context.Value("d", 1.5)]
    point = context.Value(Point, 1, 2)
    numbers = context.Array("l", range(1000))
    text = context.Array("c", 20)
    raw = context.RawArray(ctypes.c_short, 4)
    done = context.SimpleQueue()
    process = context.Process(target=change, args=(values, point, numbers, text, raw, done))
    process.start()
    got, raw_again = done.get()
    process.join()
    assert process.exitcode == 0
    assert (values[0].value, values[1].value) == (2, 3.0)
    assert point.x == -1.0
    assert numbers[:] == list(range(0, 2000, 2))
    assert got == [0, 2, 4]
    assert text.value == b"changed"
    assert raw[:] == [5, 0, 0, 0]
    # The same memory by another way.
    raw_again[1] = 6
    assert raw[1] == 6


def count_up(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def test_nothing_is_lost_under_the_lock(method):
    context = tenfold.get_context(method)
    value = context.Value("q", 0)
    processes = [context.Process(target=count_up, args=(value, 3000)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert value.value == 9000


def test_they_travel_in_any_message():
    queue = tenfold.SimpleQueue()
    value = tenfold.RawValue("i", 5)
    numbers = tenfold.RawArray("d", [1, 2])
    point = tenfold.RawValue(Point, 3, 4)
    queue.put({"all": [value, (numbers, point)]})
    arrived = queue.get()["all"]
    arrived[0].value = 6
    arrived[1][0][1] = 7
    arrived[1][1].y = 8
    assert (value.value, numbers[1], point.y) == (6, 7, 8)
    # The message keeps the memory.
    queue.put(value)
    del value
    assert queue.get().value == 6
    # A ctypes object that is not shared travels by its content.
    own = ctypes.c_int(3)
    queue.put(own)
    again = queue.get()
    again.value = 4
    assert own.value == 3
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(point)


def test_synchronized_objects_travel():
    queue = tenfold.SimpleQueue()
    value, numbers = (
        tenfold.Value("i", 1, lock=NativeLock()),
        tenfold.Array("d", 2, lock=NativeLock()),
    )
    queue.put((value, numbers))
    value_again, numbers_again = queue.get()
    value_again.value = 2
    numbers_again[1] = 2.5
    assert value.value == 2
    assert numbers[:] == [0, 2.5]
    assert type(numbers_again) is sharedctypes.SynchronizedArray


def test_large_memory_is_zero_contiguous_and_goes_back():
    before = live()
    numbers = tenfold.RawArray("d", 3 * MIB)
    assert live() - before >= 24 * MIB
    view = memoryview(numbers).cast("B")
    assert view.contiguous
    assert len(view) == 24 * MIB
    assert not any(view[:: 4096 * 7])
    numbers[3 * MIB - 1] = 1.5
    assert view[-8:].cast("d")[0] == 1.5
    del numbers
    assert live() - before >= 24 * MIB
    view.release()
    del view
    assert live() == before
    # Used before, and zero again.
    numbers = tenfold.RawArray("B", 24 * MIB)
    assert not any(memoryview(numbers).cast("B")[:: 4096 * 7])
    assert numbers[24 * MIB - 1] == 0


def test_what_is_made_of_the_buffer_keeps_the_memory():
    before = live()
    points = tenfold.RawArray(Point, MIB)
    points[7].x = 1.5
    inner = ctypes.c_double.from_buffer(points[7])
    alias = memoryview(points)
    del points
    assert inner.value == 1.5
    assert live() > before
    del alias
    assert live() > before
    del inner
    assert live() == before


def test_memory_outlives_its_maker_and_not_its_last_holder(method):
    before = live()
    context = tenfold.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=make_and_exit, args=(queue,))
    process.start()
    process.join()
    numbers = queue.get()
    assert numbers[:3] == [1, 2, 3]
    assert numbers[2 * MIB - 1] == 9
    del numbers, queue
    assert live() == before


def make_and_exit(queue):
    numbers = tenfold.RawArray("i", 2 * MIB)
    numbers[:3] = [1, 2, 3]
    numbers[2 * MIB - 1] = 9
    queue.put(numbers)


def test_a_killed_holder_gives_the_memory_back():
    before = live()
    context = tenfold.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=make_and_sleep, args=(queue,))
    process.start()
    assert queue.get() == "here"
    assert live() - before >= 8 * MIB
    process.kill()
    process.join()
    del queue
    deadline = time.monotonic() + 10
    while live() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live() == before


def make_and_sleep(queue):
    numbers = tenfold.RawArray("i", 2 * MIB)
    queue.put("here")
    time.sleep(60)
    del numbers


def hold_and_die(value):
    value.get_lock().acquire()
    value.value = 5
    os.kill(os.getpid(), signal.SIGKILL)


def test_whoever_comes_after_a_killed_holder_of_the_lock_is_told():
    context = tenfold.get_context("fork")
    value = context.Value("i", 0, lock=NativeLock())
    process = context.Process(target=hold_and_die, args=(value,))
    process.start()
    process.join()
    with pytest.raises(tenfold.OwnerDied):
        value.value  # noqa: B018
    assert value.value == 5
    value.value = 6
    assert value.value == 6


def test_sizes_that_make_no_sense():
    for size, error in ((-1, ValueError), (2**70, OverflowError), ("x", TypeError)):
        with pytest.raises(error):
            sharedctypes.Memory(size)
    with pytest.raises(MemoryError):
        sharedctypes.Memory(2**50)
    assert len(tenfold.RawArray("i", 0)) == 0


def work_within_a_gibibyte():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
    small = tenfold.Array("i", range(10))
    assert small[:] == list(range(10))
    large = tenfold.RawArray("d", 8 * MIB)
    large[8 * MIB - 1] = 2.5
    with pytest.raises(MemoryError, match="RLIMIT_AS"):
        tenfold.RawArray("d", 200 * MIB)
    assert large[8 * MIB - 1] == 2.5


def test_under_an_address_space_limit():
    # Not a fork: what the tests before have mapped would count.
    process = tenfold.get_context("spawn").Process(target=work_within_a_gibibyte)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_child_of_fork_sees_what_its_parent_writes_later():
    context = tenfold.get_context("fork")
    numbers = context.RawArray("i", MIB)
    go = context.SimpleQueue()

    def child():
        go.get()
        assert numbers[MIB - 1] == 7

    process = context.Process(target=child)
    process.start()
    numbers[MIB - 1] = 7
    go.put(None)
    process.join()
    assert process.exitcode == 0
