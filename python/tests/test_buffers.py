"""Large buffers: they arrive without a second copy, private and writable, and go when they die."""

import gc
import os
import pickle
import resource
import signal
import time

import pytest

import tenfold
from tenfold import SimpleQueue, _native

np = pytest.importorskip("numpy")

MIB = 1 << 20
LITTLE = 1 << 16


def live():
    """Bytes of the shared heap in use, but for a few: processes on record, queues that are kept."""
    gc.collect()
    return _native.heap_stats().get("bytes_live", 0) // LITTLE * LITTLE


def send(obj):
    """Return what arrives when `obj` is sent."""
    queue = SimpleQueue()
    queue.put(obj)
    return queue.get()


def in_child(function):
    """Run `function` in a fork; returns its pid, to be given to `succeeds`."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def succeeds(pid):
    _, status = os.waitpid(pid, 0)
    # A child that user code forked and reaped is noticed by the warden some time; here at once.
    _native.reaped(pid, status)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.fixture(autouse=True)
def memory_comes_back():
    SimpleQueue()
    before = live()
    yield
    deadline = time.monotonic() + 10
    # Less is what an earlier test had left for a moment.
    while live() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live() <= before


@pytest.mark.parametrize("size", [100, 70_000, 600_000, MIB, 5 * MIB, 33 * MIB])
@pytest.mark.parametrize("kind", ["f8", "u1", "c16", "g"])
def test_arrays_arrive(size, kind):
    array = np.arange(size // np.dtype(kind).itemsize).astype(kind)
    arrived = send(array)
    assert arrived.dtype == array.dtype
    assert (arrived == array).all()
    assert arrived.flags.writeable
    assert arrived.flags.aligned
    arrived[:] = 0
    assert array[-1] != 0


def test_shapes_orders_and_read_only_arrays_keep_what_they_are():
    array = np.arange(MIB).reshape(8, -1)
    for sent in (array, np.asfortranarray(array), array[:, ::2], array.T, array[2:4]):
        arrived = send([sent, "and more"])[0]
        assert (arrived == sent).all()
        assert arrived.shape == sent.shape
    array.flags.writeable = False
    assert not send(array).flags.writeable
    structured = np.zeros(MIB, dtype=[("a", "i4"), ("b", "f8")])
    structured["b"] = 1.5
    assert (send(structured) == structured).all()


def test_a_large_array_takes_no_copy_and_the_shared_memory_is_held_just_as_long():
    before = live()
    arrived = send(np.ones(4 * MIB, "u1"))
    assert live() - before >= 4 * MIB
    part = arrived[MIB : MIB + 10]
    del arrived
    assert live() - before >= 4 * MIB
    assert part.sum() == 10
    del part
    assert live() == before


def test_a_small_array_leaves_nothing_in_shared_memory():
    before = live()
    arrived = send(np.ones(100_000, "u1"))
    assert live() == before
    assert arrived.sum() == 100_000


def test_many_arrays_in_one_message():
    sent = [np.full(size, size % 251, "u1") for size in (3, 70_000, 2 * MIB, 65_536, MIB, 10)]
    arrived = send({"arrays": sent, "bytes": b"x" * MIB, "array": bytearray(MIB)})
    assert arrived["bytes"] == b"x" * MIB
    assert type(arrived["array"]) is bytearray
    for one, other in zip(sent, arrived["arrays"], strict=True):
        assert (one == other).all()
    kept = arrived["arrays"][4]
    del arrived
    assert (kept == sent[4]).all()


def test_what_arrived_can_be_sent_again():
    arrived = send(np.arange(MIB))
    arrived[0] = 77
    again = send(arrived)
    del arrived
    again[1] = 78
    third = send([again])[0]
    assert third[:3].tolist() == [77, 78, 2]
    assert (pickle.loads(pickle.dumps(third)) == third).all()


class Blob:
    """Keeps the buffer that it is given."""

    def __init__(self, buffer):
        self.buffer = buffer

    def __reduce_ex__(self, protocol):
        return Blob, (pickle.PickleBuffer(self.buffer),)


class Holder:
    """Pickled by its attributes."""

    def __init__(self, buffer):
        self.buffer = buffer


def test_buffers_of_other_classes():
    for size in (10, 100_000, 3 * MIB):
        arrived = send(Blob(bytearray(b"ab" * (size // 2))))
        assert len(arrived.buffer) == size
        assert bytes(arrived.buffer[:2]) == b"ab"
        arrived.buffer[0] = ord("x")
        assert arrived.buffer[0] == ord("x")
        again = send(arrived)
        assert bytes(again.buffer[:4]) == b"xbab"
        # As an attribute, which pickle looks at without knowing of buffers.
        held = send(Holder(again.buffer))
        assert bytes(held.buffer[:4]) == b"xbab"
        assert held.buffer == again.buffer
        assert bytes(pickle.loads(pickle.dumps(held, 4)).buffer[:4]) == b"xbab"
        # A buffer that may not be written to is refused, also where it lies.
        if size > 200_000:
            frozen = send(Blob(bytes(size)))
            with pytest.raises(TypeError):
                frozen.buffer[0] = 1


def test_writes_on_one_side_are_not_seen_on_the_other(method):
    context = tenfold.get_context(method)
    there, back = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=add_one, args=(there, back))
    process.start()
    array = np.zeros(MIB)
    there.put(array)
    arrived = back.get()
    assert arrived[:].min() == 1
    assert array.max() == 0
    arrived += 1
    there.put(arrived)
    assert back.get().min() == 3
    assert arrived.max() == 2
    there.put(None)
    process.join()
    assert process.exitcode == 0


def add_one(there, back):
    while (array := there.get()) is not None:
        array += 1
        back.put(array)


def test_a_fork_after_the_arrival_shares_nothing():
    holder = [send(np.zeros(MIB))]
    holder[0][0] = 1
    reader, writer = os.pipe()

    def child():
        assert os.read(reader, 1) == b"x"
        # The parent has written, let go of the array, and used the memory again.
        arrived = holder[0]
        assert arrived[0] == 1
        assert arrived[1:].max() == 0
        arrived[5] = 6
        assert send(arrived)[5] == 6

    first = in_child(child)
    second = in_child(child)
    holder.pop()[:] = 9
    for _ in range(3):
        send(np.full(MIB, 7.0))
    os.write(writer, b"xx")
    succeeds(first)
    succeeds(second)
    os.close(reader)
    os.close(writer)


def test_a_child_lets_go_of_what_it_inherited():
    before = live()
    arrived = send(np.ones(2 * MIB, "u1"))
    reader, writer = os.pipe()
    go_reader, go_writer = os.pipe()
    holder = [arrived]

    def child():
        holder.clear()
        os.write(writer, b"x")
        os.read(go_reader, 1)

    del arrived
    pid = in_child(child)
    assert os.read(reader, 1) == b"x"
    holder.clear()
    assert live() == before
    os.write(go_writer, b"x")
    succeeds(pid)
    for fd in (reader, writer, go_reader, go_writer):
        os.close(fd)


def receive_and_sleep(queue, ready, moment):
    kept = None if moment == "before" else queue.get()
    ready.put("here")
    time.sleep(60)
    del kept


@pytest.mark.parametrize("moment", ["holding", "inherited", "before"])
def test_a_killed_receiver_gives_the_memory_back(moment):
    before = live()
    context = tenfold.get_context("fork")
    queue, ready = context.SimpleQueue(), context.SimpleQueue()
    queue.put(np.ones(8 * MIB, "u1"))
    inherited = send(np.ones(4 * MIB, "u1")) if moment == "inherited" else None

    process = context.Process(target=receive_and_sleep, args=(queue, ready, moment))
    process.start()
    assert ready.get() == "here"
    del inherited
    process.kill()
    process.join()
    del queue, ready, process
    deadline = time.monotonic() + 10
    while live() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live() == before


def test_rounds_do_not_grow_the_heap():
    array = np.ones(2 * MIB, "u1")
    for _ in range(3):
        send(array)
    committed = _native.heap_stats()["bytes_committed"]
    for _ in range(50):
        send(array)
    assert _native.heap_stats()["bytes_committed"] == committed


def test_under_an_address_space_limit_things_go_on():
    context = tenfold.get_context("fork")
    queue, back = context.SimpleQueue(), context.SimpleQueue()

    def child():
        # A copy of this process, whatever other tests have mapped in it.
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), resource.RLIM_INFINITY))
        while (array := queue.get()) is not None:
            back.put(array * 2)
        # More than fits is an error that says why, and then things go on.
        kept = []
        with pytest.raises(MemoryError, match="RLIMIT_AS"):
            while True:
                kept.append(send(np.ones(16 * MIB)))
        kept.clear()
        assert send(np.ones(16 * MIB)).sum() == 16 * MIB
        assert len(send(b"x" * (64 * MIB))) == 64 * MIB

    pid = in_child(child)
    for size in (1000, MIB // 2, 16 * MIB):
        array = np.arange(float(size))
        queue.put(array)
        assert (back.get() == 2 * array).all()
    queue.put(None)
    succeeds(pid)


def test_more_arrays_than_mappings():
    with open("/proc/sys/vm/max_map_count") as file:
        most = int(file.read())
    if most > 70_000:
        pytest.skip("the system allows very many mappings")
    queue = SimpleQueue()
    kept = []

    # A megabyte each would be 64 GiB: each mapping is taken by something smaller instead.
    import mmap

    page = mmap.PAGESIZE
    try:
        while True:
            # Neighbours with different protection do not become one mapping.
            kept.append(mmap.mmap(-1, page, prot=mmap.PROT_READ))
            kept.append(mmap.mmap(-1, page))
    except OSError:
        pass
    assert len(kept) > 1000
    queue.put(np.ones(MIB))
    arrived = queue.get()
    assert arrived.sum() == MIB
    assert arrived.flags.writeable
    for mapping in kept:
        mapping.close()


def test_parent_and_child_write_to_memory_of_their_own():
    """The same block again and again: what was written to it before does not show."""
    for round in range(3):
        array = send(np.full(MIB, float(round)))
        array[0] = -1
        done = tenfold.Event()

        def child(array=array, done=done, round=round):
            assert done.wait(30)
            assert array[0] == -1 and (array[1:] == round).all()
            array[:] = -3

        pid = in_child(child)
        array[1] = -2
        done.set()
        succeeds(pid)
        assert array[:2].tolist() == [-1, -2] and (array[2:] == round).all()
        del array, child
        gc.collect()
    assert (send(np.full(MIB, 9.0)) == 9).all()
