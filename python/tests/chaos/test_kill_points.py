"""Deaths at each of the engine's kill-points, in what Python programs do: see dying.py.

The native module is built once more for this, with the feature `kill-points`, into
target/kill-points; a copy of the package with it is what these programs import.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from companions import LONG, eventually, finish, is_running
from dying import CLEARING_UP, FORKED, UNREACHABLE, WARDEN

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "python" / "tenfold"


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A folder with a package tenfold in which one can die at kill-points."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("the module with kill-points must be built, and there is no cargo in PATH")
    target = ROOT / "target" / "kill-points"
    command = [cargo, "build", "--quiet", "--package", "tenfold-python"]
    command += ["--profile", "python-dev", "--features", "kill-points", "--target-dir", target]
    subprocess.run(command, cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("kill-points")
    ignored = shutil.ignore_patterns("__pycache__", "_native.*.so")
    shutil.copytree(PACKAGE, folder / "tenfold", ignore=ignored)
    built = target / "python-dev" / "lib_native.so"
    shutil.copy(built, folder / "tenfold" / "_native.abi3.so")
    return folder


@pytest.fixture
def run(package):
    """A function that runs a program with that package to its end and returns what it printed."""

    def run(*command, limit=LONG):
        environment = {**os.environ, "PYTHONPATH": str(package)}
        done, out, err = finish(command, limit, env=environment)
        assert done.returncode == 0, err
        return out

    return run


def die_everywhere(run, method, passes, limit):
    program = Path(__file__).parent / "dying.py"
    deaths = json.loads(run(program, method, *map(str, passes), limit=limit))
    unreached = {point for point, count in deaths.items() if not count}
    if method == "forkserver":
        # The server, which reaps, most often clears up sooner than who is to die at it.
        unreached -= CLEARING_UP
    assert unreached == UNREACHABLE.keys() | WARDEN | (FORKED if method != "fork" else set())


# The module is built within the first one's time.
@pytest.mark.timeout(600)
@pytest.mark.fault(1, 7, 8, 9, 10)
def test_a_death_at_each_point(run):
    die_everywhere(run, "fork", [0], limit=240)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.fault(1, 7, 8, 9, 10)
def test_a_death_at_each_point_after_several_passes(run, method):
    # Processes that are exec'd take their time.
    passes = [0, 1, 2, 5, 12, 30, 77, 200] if method == "fork" else [0, 7]
    die_everywhere(run, method, passes, limit=1500)


ARMED = """
import os, time, tenfold
from tenfold import _family, _native

def arm(point):
    call = f"native.kill_at({point!r}, 0)\\n"
    head, rest = _family._WARDEN.split("native.run_warden")
    _family._WARDEN = head + call + "native.run_warden" + rest
    _family._warden_environment = lambda invitation: None

context = tenfold.get_context("fork")
"""


@pytest.mark.fault(22)
def test_the_warden_dies_before_it_serves(run):
    run(
        "-c",
        ARMED
        + """
whole = _family._WARDEN
arm("warden.started")
child = context.Process(target=len, args=("",))
child.start()
child.join(60)
assert child.exitcode == 0
_family._WARDEN = whole
end = time.monotonic() + 60
while True:
    child = context.Process(target=len, args=("",))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    warden = _native.warden_pid()
    if warden and os.path.exists(f"/proc/{warden}"):
        break
    assert time.monotonic() < end, "there is no other warden"
""",
    )


@pytest.mark.fault(11, 22)
def test_the_warden_dies_when_it_has_ended_the_family(package, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        ARMED
        + """
def run():
    print(os.getpid(), flush=True)
    time.sleep(1000)

if __name__ == "__main__":
    arm("warden.ending")
    context.Process(target=run).start()
    time.sleep(1000)
"""
    )
    root = subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=subprocess.PIPE,
    )
    child = int(root.stdout.readline())
    root.kill()
    root.wait(LONG)
    try:
        eventually(lambda: not is_running(child), seconds=3)
    finally:
        if is_running(child):
            os.kill(child, signal.SIGKILL)
