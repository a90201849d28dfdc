"""Threads that wait in tenfold when the program ends: they are no reason to crash."""

import pytest

WAITS = {
    "queue": "queue.get(timeout=0.0005)",
    "lock": "lock.acquire(True, 0.0005)",
    "event": "event.wait(0.0005)",
    "condition": "with condition: condition.wait(0.0005)",
    "semaphore": "semaphore.acquire(True, 0.0005)",
    "result": "result.wait(0.0005)",
    "pickling": "pickled.put([slow])",
}

PROGRAM = """
import contextlib, threading, time, tenfold

class Slow:
    def __reduce__(self):
        time.sleep(0.0002)
        return str, ()

def wait():
    while True:
        with contextlib.suppress(Exception):
            {statement}

if __name__ == "__main__":
    queue, lock, event = tenfold.Queue(), tenfold.Lock(), tenfold.Event()
    condition, semaphore = tenfold.Condition(), tenfold.Semaphore(0)
    lock.acquire()
    slow, pickled = Slow(), tenfold.Queue(5)
    pool = tenfold.get_context("fork").Pool(1)
    result = pool.apply_async(time.sleep, (60,))
    for _ in range(4):
        threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.05)
"""


@pytest.mark.parametrize("wait", sorted(WAITS))
def test_daemon_threads_that_wait(python, wait):
    for _ in range(4):
        python(PROGRAM.replace("{statement}", WAITS[wait]))
