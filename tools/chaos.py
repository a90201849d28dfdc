#!/usr/bin/env python3
"""Run all tests that cause faults, several times over, and say how often each failed.

usage: chaos.py [--times N] [--load] [--python PROGRAM]

With --load, two more processes for each processor keep them busy all the while. The exit status is 0 if every run passed.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time

CARGO_TEST = ["cargo", "test", "--quiet", "--package", "tenfold-shm", "--package", "tenfold", "--test", "chaos_*"]
OTHERS = ["--features", "kill-points", "--test", "bad_input", "--test", "garbage", "--test", "leftovers"]


def commands(python):
    yield "Rust", [*CARGO_TEST, *OTHERS]
    yield "Rust, slow", [*CARGO_TEST, "--", "--ignored", "slow_"]
    yield "Python", [python, "-m", "pytest", "--quiet", "-m", "fault", "--basetemp", "target/pytest"]


@contextlib.contextmanager
def busy():
    """Two busy processes for each processor."""
    spin = "while True: pass"
    burners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def main() -> int:
    # A shell that runs a job in the background has it ignore Ctrl-C; the tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    failed = []
    with busy() if options.load else contextlib.nullcontext():
        for run in range(1, options.times + 1):
            for half, command in commands(options.python):
                started = time.monotonic()
                status = subprocess.call(command)
                word = "passed" if status == 0 else f"FAILED, exit status {status}"
                print(f"run {run} of {options.times}, {half}: {word}, {time.monotonic() - started:.0f} s", flush=True)
                if status:
                    failed.append((run, half))
    print(f"chaos: {options.times} runs{' under load' if options.load else ''}, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
