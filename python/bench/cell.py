"""One measurement: a row by a system, in a process of its own."""

import os
import subprocess
import sys
import tempfile

from bench import curves, rows, systems
from bench.processes import end_session
from bench.row import Row

__all__ = ["Failure", "measure_apart", "measure_here"]

ANSWER = "measured: "


class Failure(Exception):
    """A measurement came to nothing; the text is short, for the table."""


def find(name: str) -> Row:
    """A row of the table, or of a curve: `queue-size@64`."""
    name, _, point = name.partition("@")
    if point:
        return next(curve for curve in curves.ALL if curve.name == name).at(int(point))
    return next(row for row in rows.ALL if row.name == name)


def measure_here(row_name: str, system_name: str) -> None:
    """Measure in this process and print the number."""
    row = find(row_name)
    if system_name in row.floors:
        number = row.floors[system_name]()
    else:
        system = systems.by_name(system_name).open(row)
        number = row.measure(system)
        system.close()
    print(f"\n{ANSWER}{number!r}", flush=True)


def measure_apart(row: Row, system_name: str, limit: float) -> float:
    """Measure in a fresh process.

    It is ended with all that it started if it takes longer than `limit` seconds.
    """
    command = [
        sys.executable,
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "program.py"),
        row.name,
        system_name,
    ]
    # Files, not pipes: a process that outlives the measurement would keep a pipe open. And a folder
    # for what systems put into the temporary one and do not take away.
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "TMPDIR": folder},
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"not done in {limit:.0f} s") from None
        finally:
            end_session(process.pid)
            process.wait()
        output.seek(0)
        errors.seek(0)
        for line in output:
            if line.startswith(ANSWER):
                return float(line.removeprefix(ANSWER))
        complaints = [line.strip() for line in errors if line.strip()]
        raise Failure(
            complaints[-1][:100] if complaints else f"exit code {process.returncode}, no answer"
        )
