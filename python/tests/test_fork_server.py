"""What children of the fork server find, and what they do not."""

import signal
import threading
import time
import types

import pytest

import tenfold
from tenfold import forkserver

MAIN = """
import gc, tenfold

if __name__ == "__mp_main__":
    {imported}

def look(queue):
    before = gc.get_freeze_count(), gc.isenabled()
    gc.collect()
    cycle = []
    cycle.append(cycle)
    del cycle
    queue.put((*before, gc.collect()))

if __name__ == "__main__":
    context = tenfold.get_context("forkserver")
    queue = context.Queue()
    for _ in range(3):
        child = context.Process(target=look, args=(queue,))
        child.start()
        frozen, enabled, collected = queue.get(timeout=60)
        assert frozen > 1000 and collected == 1, (frozen, collected)
        print(enabled)
        child.join(60)
"""


@pytest.mark.parametrize(("imported", "enabled"), [("pass", True), ("gc.disable()", False)])
def test_children_collect_their_own_garbage_alone(python, imported, enabled):
    """What the server imported is out of the collector's sight: a look would copy its pages."""
    assert python(MAIN.format(imported=imported)) == f"{enabled}\n" * 3


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_children_do_what_was_registered_for_after_a_fork(python, method):
    program = f"""
import sys, tenfold
from tenfold import util

class Counter:
    forks = 0
    def count(self):
        self.forks += 1

counter = Counter()
if {method!r} == "fork" or __name__ == "__mp_main__":
    util.register_after_fork(counter, Counter.count)

def tell():
    sys.exit(10 + counter.forks)

if __name__ == "__main__":
    for _ in range(2):
        child = tenfold.get_context({method!r}).Process(target=tell)
        child.start()
        child.join(60)
        print(child.exitcode)
"""
    assert python(program) == "11\n11\n"


def sleep():
    time.sleep(60)


def test_threads_that_join_one_child_all_learn_how_it_ended(monkeypatch):
    """The server tells the exit code once, and a start in any thread looks after all children."""
    read = forkserver.read_signed

    def read_slowly(fd):
        number = read(fd)
        time.sleep(0.3)
        return number

    child = tenfold.get_context("forkserver").Process(target=sleep)
    child.start()
    monkeypatch.setattr(forkserver, "read_signed", read_slowly)
    nobody_knows = types.SimpleNamespace(exit_code=lambda timeout: None)
    monkeypatch.setattr(child._popen, "_record", nobody_knows)
    child.kill()
    codes = []

    def join():
        child.join(60)
        codes.append(child.exitcode)

    threads = [threading.Thread(target=join) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [-signal.SIGKILL] * 3
