#!/usr/bin/env python3
"""Run a command and check that it leaves nothing behind: no process, no file in /dev/shm, none in the
temporary folder.

usage: leave_nothing.py COMMAND [ARGUMENT...]

Every process that descends from the command carries a mark in its environment, by which it is found even
if it has changed its session or lost its parent; the command has a temporary folder of its own. The exit
status is the command's, or 1 if something was left."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

# Seconds that helper processes have to notice the end of their family.
PATIENCE = 5.0


def marked_processes(mark: bytes) -> list[str]:
    """The processes whose environment holds the mark, as "pid command line"."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                if mark not in environment.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                found.append(f"{pid} {command.read().replace(bytes(1), b' ').decode(errors='replace').strip()}")
        except OSError:
            # Another user's, or gone by now.
            continue
    return found


def everything_left(mark: bytes, folder: str, shared_before: set[str]) -> list[str]:
    """One line for each thing that is left."""
    left = [f"process {line}" for line in marked_processes(mark)]
    left += [f"/dev/shm/{name}" for name in sorted(set(os.listdir("/dev/shm")) - shared_before)]
    left += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return left


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    value = uuid.uuid4().hex
    folder = tempfile.mkdtemp(prefix="tenfold-test-")
    shared_before = set(os.listdir("/dev/shm"))
    try:
        status = subprocess.call(sys.argv[1:], env=dict(os.environ, TENFOLD_TEST_RUN=value, TMPDIR=folder))
        mark = f"TENFOLD_TEST_RUN={value}".encode()
        deadline = time.monotonic() + PATIENCE
        while (left := everything_left(mark, folder, shared_before)) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for line in left:
        print(f"left behind: {line}")
    if not left:
        print("left behind: nothing (no process, no file in /dev/shm or the temporary folder)")
    return status if status else int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
