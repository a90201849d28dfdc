"""One measurement: a row by a system, in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

from bench import systems
from bench.row import Row
from bench.rows import ALL

__all__ = ["Failure", "measure_apart", "measure_here"]

ANSWER = "measured: "


class Failure(Exception):
    """A measurement came to nothing; the text is short, for the table."""


def measure_here(row_name: str, system_name: str) -> None:
    """Measure in this process and print the number."""
    row = next(row for row in ALL if row.name == row_name)
    if system_name in row.floors:
        number = row.floors[system_name]()
    else:
        system = systems.by_name(system_name).open(row)
        number = row.measure(system)
        system.close()
    print(f"\n{ANSWER}{number!r}", flush=True)


def measure_apart(row: Row, system_name: str, limit: float) -> float:
    """Measure in a fresh process.

    It is ended with all its children if it takes longer than `limit` seconds.
    """
    command = [
        sys.executable,
        os.path.dirname(os.path.abspath(__file__)),
        "--measure",
        row.name,
        system_name,
    ]
    # Files, not pipes: a process that outlives the measurement would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"not done in {limit:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
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
