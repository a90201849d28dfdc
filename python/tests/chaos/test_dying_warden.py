"""Starts that meet a dying warden: it, its deputy or both are killed from outside all the time."""

import os
import random
import subprocess
import sys

import pytest
from test_family import kill_with_its_family, start
from test_family_services import WARDEN

pytestmark = pytest.mark.fault(22)

# Kills all that have "run_warden" in their command lines and the mark in their environment, until
# its input ends; then says how many it has killed.
KILLER = """
import os, random, select, signal, sys
mark, others, kills = sys.argv[1].encode(), set(os.listdir("/proc")), 0

def read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""

while not select.select([0], [], [], random.choice((0, 0, 0.002, 0.01, 0.05)))[0]:
    for pid in os.listdir("/proc"):
        if pid not in others and pid.isdigit() and b"run_warden" in read(pid, "cmdline"):
            if mark in read(pid, "environ"):
                try:
                    os.kill(int(pid), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
print(kills)
"""


def test_starts_while_all_wardens_are_killed(python, method, monkeypatch):
    mark = f"{os.getpid()}-{random.random()}"
    monkeypatch.setenv("DYING_WARDEN", mark)
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        python(
            WARDEN
            + f"""
if __name__ == "__main__":
    context = tenfold.get_context({method!r})
    queue = context.Queue()
    # By fork, forty are over before the killer has looked often.
    n, end = 0, time.monotonic() + 2
    while n < 40 or time.monotonic() < end:
        n += 1
        if n % 10 == 9:
            with context.Pool(2) as pool:
                assert pool.map(twice, range(20)) == [2 * x for x in range(20)]
            pool.join()
        else:
            child = context.Process(target=put, args=(queue, n))
            child.start()
            assert queue.get(timeout=60) == 2 * n
            child.join(60)
            assert child.exitcode == 0
"""
        )
    finally:
        kills, _ = killer.communicate("")
    assert int(kills) > 3


# One of the two is killed, sooner or later, while a process is started.
ONE_OF_TWO = (
    WARDEN
    + """
import random, subprocess, sys

KILLER = '''
import os, select, signal, sys, time
for line in sys.stdin:
    delay, pid = line.split()
    pidfd = os.pidfd_open(int(pid))
    end = time.monotonic() + float(delay)
    while time.monotonic() < end:
        pass
    signal.pidfd_send_signal(pidfd, 9)
    select.select([pidfd], [], [])
    os.close(pidfd)
    print("dead", flush=True)
'''

def guarded():
    "The warden and its deputy, once both are there."
    found = []
    def both():
        warden = warden_other_than(None)
        found[:] = [warden, *children(warden)] if warden else []
        return len(found) == 2
    eventually(both)
    return found

if __name__ == "__main__":
    method, longest = sys.argv[1], float(sys.argv[2])
    context = tenfold.get_context(method)
    queue = context.Queue()
    kept = context.Process(target=time.sleep, args=(1000,))
    kept.start()
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for n in range(20):
        victim = random.choice(guarded())
        killer.stdin.write(f"{random.random() * longest} {victim}\\n")
        killer.stdin.flush()
        time.sleep(random.random() * longest / 3)
        child = context.Process(target=put, args=(queue, n))
        child.start()
        assert queue.get(timeout=60) == 2 * n
        child.join(60)
        assert child.exitcode == 0
        assert killer.stdout.readline() == "dead\\n"
    killer.kill()
    print(kept.pid, *guarded(), flush=True)
    time.sleep(1000)
"""
)


@pytest.mark.fault(11)
def test_one_of_the_two_is_enough(tmp_path, method):
    longest = {"fork": 0.003, "spawn": 0.06, "forkserver": 0.006}[method]
    process, pids = start(tmp_path, ONE_OF_TWO, method, str(longest))
    assert len(pids) == 3
    kill_with_its_family(process, pids)
