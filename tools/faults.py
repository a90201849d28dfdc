#!/usr/bin/env python3
"""Cause each fault of docs/faults.md in the standard library and in tenfold, and print what came of it.

usage: faults.py [--method fork] [--rows 1,13] [--limit SECONDS] [--python PROGRAM] [--write docs/faults.md]

The programs are those of python/tests/chaos/faults.py. Each runs in a session of its own, with a temporary folder of
its own, and a mark in its environment, by which what it leaves behind is found. An outcome is what was seen:

    right             it did what must happen
    error: …          the exception that the caller got
    wrong: …          an answer, but not the right one
    hangs             no end within the limit; it was killed
    crashes           it ended by a signal, or with another exit status
    … n orphans left  processes that are still there two seconds after its end; they are killed then
    … n files left    in the temporary folder (whose a file in /dev/shm is cannot be told)

With --write, the table replaces what is between the two markers of that file."""

import argparse
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

from leave_nothing import marked_processes

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "python/tests/chaos/faults.py"
MODULES = ("multiprocessing", "tenfold")
MARKERS = ("<!-- outcomes -->", "<!-- end of outcomes -->")
# Seconds that the processes of a program have to notice its end.
PATIENCE = 2.0
# Characters of an error that are shown.
WIDTH = 60


def faults():
    """The module of the programs."""
    spec = importlib.util.spec_from_file_location("faults", PROGRAMS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(command, ends_by, limit):
    """Run a program and say what came of it."""
    value, folder = uuid.uuid4().hex, tempfile.mkdtemp(prefix="tenfold-fault-")
    mark = f"TENFOLD_FAULT={value}".encode()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=dict(os.environ, TENFOLD_FAULT=value, TMPDIR=folder),
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        deadline = time.monotonic() + PATIENCE
        while status is not None and marked_processes(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        orphans = marked_processes(mark)
        files = os.listdir(folder)
        end_all(mark)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        out.seek(0)
        err.seek(0)
        # A number that is another one each time has no place in a document.
        said = re.findall(r"^outcome: (.*)", re.sub(r"pid \d+", "pid …", out.read()), re.MULTILINE)
        tracebacks = err.read().count("Traceback")
    if status is None:
        return "hangs"
    seen = []
    if ends_by:
        seen += ["right"] if status == -ends_by else [f"ends with {status}"]
        seen += [f"{tracebacks} tracebacks"] if tracebacks > 1 else []
    elif status or not said:
        seen.append(f"crashes ({signal.Signals(-status).name if status < 0 else f'exit status {status}'})")
    else:
        seen.append(said[-1] if len(said[-1]) <= WIDTH else said[-1][: WIDTH - 1].rstrip() + "…")
    for things, name in ((orphans, "orphan"), (files, "file")):
        seen += [f"{len(things)} {name}{'s' * (len(things) > 1)} left"] if things else []
    # What is left tells enough.
    return ", ".join(seen[1:] if len(seen) > 1 and seen[0] == "right" else seen)


def end_all(mark):
    """Kill what is left of a program; a pool may start workers anew meanwhile.

    The standard library's resource tracker ends by itself after them, and removes their names from /dev/shm."""
    deadline = time.monotonic() + PATIENCE
    while left := marked_processes(mark):
        for line in left:
            if "resource_tracker" in line and time.monotonic() < deadline:
                continue
            try:
                os.kill(int(line.split()[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="fork", choices=("fork", "spawn", "forkserver"))
    parser.add_argument("--rows", help="numbers, with commas; all without")
    parser.add_argument("--limit", type=float, default=8)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--write", type=pathlib.Path, help="the file to write the table into")
    options = parser.parse_args()
    programs = faults()
    rows = [int(row) for row in options.rows.split(",")] if options.rows else sorted(programs.FAULTS)
    table = [f"| # | fault | {' | '.join(MODULES)} |", "|---|---|---|---|"]
    print("\n".join(table), flush=True)
    for row in rows:
        seen = [
            outcome(
                [options.python, str(PROGRAMS), str(row), module, options.method],
                programs.ENDS_BY.get(row),
                options.limit,
            ).replace("|", "\\|")
            for module in MODULES
        ]
        table.append(f"| {row} | {programs.FAULTS[row][0]} | {' | '.join(seen)} |")
        print(table[-1], flush=True)
    if options.write:
        before, _, rest = options.write.read_text().partition(MARKERS[0])
        _, _, after = rest.partition(MARKERS[1])
        options.write.write_text("\n".join([before + MARKERS[0], *table, MARKERS[1]]) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
