"""Garbage is written over the heap's descriptors: errors come of it, and nobody crashes."""

import pytest

pytestmark = pytest.mark.fault(24)

# Each case is a process with a heap of its own, which it ruins; how it is laid out is told in
# crates/tenfold-shm/src/heap/block.rs.
PROGRAM = """
import gc, os, queue, random, signal, struct, sys, tenfold
from tenfold import _native

DIRECTORY, DESCRIPTOR = 64 << 10, 64

def words(fd):
    "The places of all words of descriptors that have been in use."
    (table,) = struct.unpack("<Q", os.pread(fd, 8, DIRECTORY))
    found = []
    for at in range(table, table + 1024 * DESCRIPTOR, DESCRIPTOR):
        state, offset = struct.unpack("<QQ", os.pread(fd, 16, at))
        if offset:
            found.extend(range(at, at + 7 * 8, 8))
    return found

def scribble(fd, chance):
    places = words(fd)
    assert len(places) > 7 * 10
    for at in chance.sample(places, chance.choice([5, 50, len(places)])):
        (now,) = struct.unpack("<Q", os.pread(fd, 8, at))
        (other,) = struct.unpack("<Q", os.pread(fd, 8, chance.choice(places)))
        value = chance.choice([
            chance.getrandbits(64), chance.getrandbits(5), now ^ 1 << chance.randrange(64), other,
            2**64 - 1 - chance.getrandbits(5), now + chance.getrandbits(5), now - 1,
        ])
        os.pwrite(fd, struct.pack("<Q", value % 2**64), at)

def one_case(seed):
    chance = random.Random(seed)
    items = [1, "text", b"x" * 100, [1, 2, {"a": 3}], bytes(70_000), bytes(2 << 20)]
    manager = tenfold.Manager()
    messages, d, l = tenfold.Queue(), manager.dict(), manager.list()
    numbers, value = tenfold.Array("d", 100), tenfold.Value("i", 0)
    lock, event = tenfold.Lock(), tenfold.Event()
    for n, item in enumerate(items):
        messages.put(item)
        d[n] = item
        l.append(item)
    scribble(_native.invite()[1], chance)
    errors = []

    def attempt(call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except Exception as error:
            errors.append(error)

    for n, item in enumerate(items):
        attempt(messages.put, item, timeout=0.01)
        attempt(messages.get, timeout=0.01)
        attempt(d.get, n)
        attempt(d.__setitem__, n, item)
        attempt(l.__getitem__, n)
        attempt(l.append, item)
        attempt(numbers.__setitem__, n, 1.0)
        attempt(lambda: value.value)
        attempt(tenfold.Array, "d", 1000)
        attempt(tenfold.Lock)
    attempt(d.copy)
    attempt(l.reverse)
    attempt(lock.acquire, timeout=0.01)
    attempt(event.set)
    attempt(tenfold.heap_stats)
    return errors

failed, told = [], 0
for seed in range(40):
    pid = os.fork()
    if pid == 0:
        # Ends one that hangs.
        signal.alarm(20)
        try:
            os._exit(3 if one_case(seed) else 0)
        except BaseException as error:
            # A panic is no Exception.
            os.write(2, f"{seed}: {error!r}\\n".encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told += code == 3
    if code not in (0, 3):
        failed.append((seed, code))
assert not failed, failed
# Else nothing was hit.
assert told >= 5, told
"""


def test_errors_and_no_crash(python):
    python(PROGRAM)
