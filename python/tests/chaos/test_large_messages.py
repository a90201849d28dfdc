"""Messages of more than 2 GiB: they arrive, and their memory goes back."""

import pytest
from companions import eventually

import tenfold

SIZE = 3 << 30
# A copy at either end, one in the heap, and one to spare.
NEEDED = 4 * SIZE

pytestmark = [pytest.mark.fault(14), pytest.mark.slow, pytest.mark.timeout(300)]


def kibibytes(file, field):
    with open(file) as lines:
        return int(dict(line.split(":") for line in lines)[field].split()[0])


def available():
    return kibibytes("/proc/meminfo", "MemAvailable") << 10


def held():
    """What is in shared memory on this machine, and this process's own."""
    return (kibibytes("/proc/meminfo", "Shmem") + kibibytes("/proc/self/status", "RssAnon")) << 10


def live():
    # Empty while there is no heap yet.
    return tenfold._native.heap_stats().get("bytes_live", 0)


@pytest.fixture(autouse=True)
def memory_goes_back():
    if available() < NEEDED:
        pytest.skip(f"needs {NEEDED >> 30} GiB of free memory")
    before, taken = live(), held()
    yield
    eventually(lambda: live() <= before + (1 << 20))
    eventually(lambda: held() < taken + (1 << 30))


def content():
    data = bytearray(SIZE)
    data[0], data[SIZE // 2], data[-1] = 1, 2, 3
    return data


def check(data):
    return len(data) == SIZE and (data[0], data[SIZE // 2], data[-1]) == (1, 2, 3)


def send(pipe):
    pipe.send(content())
    pipe.close()


def put(q):
    q.put(content())


def test_through_a_pipe(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=send, args=(there,))
    child.start()
    there.close()
    assert check(here.recv())
    child.join()
    assert child.exitcode == 0
    here.close()


def test_through_a_queue(ctx):
    q = ctx.Queue()
    child = ctx.Process(target=put, args=(q,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert check(q.get(timeout=60))


def test_as_the_result_of_a_pool(ctx):
    with ctx.Pool(1) as pool:
        assert check(pool.apply(content))
    pool.join()
