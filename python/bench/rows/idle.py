"""What a pool of eight costs while it does nothing."""

import os
import time
from pathlib import Path
from typing import Any

from bench.row import Row, Unit
from bench.rows.pools import end
from bench.tasks import tiny

__all__ = ["ROWS"]

WORKERS = 8
REST = 10.0


def own_processes() -> list[int]:
    """This process, its descendants, and whatever else is in its session."""
    parents, sessions = {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(pid)], sessions[int(pid)] = int(fields[1]), int(fields[3])
    own = {os.getpid(), *(pid for pid, session in sessions.items() if session == os.getsid(0))}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sorted(own)


def memory_of(pid: int) -> int:
    """Bytes of a process, of shared pages its part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_time_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_pool(system: Any) -> Any:
    pool = system.Pool(WORKERS)
    pool.map(tiny, range(1000))
    time.sleep(1.0)
    return pool


def memory(system: Any) -> float:
    pool = idle_pool(system)
    total = sum(memory_of(pid) for pid in own_processes())
    end(pool)
    return float(total)


def processor_time(system: Any) -> float:
    pool = idle_pool(system)
    before = sum(processor_time_of(pid) for pid in own_processes())
    time.sleep(REST)
    used = sum(processor_time_of(pid) for pid in own_processes()) - before
    end(pool)
    return max(used, 0.0)


ROWS = (
    Row("idle-memory", "idle Pool(8): memory of all its processes", Unit.BYTES, "Pool.map", memory),
    Row(
        "idle-cpu", "idle Pool(8): processor time in 10 s", Unit.SECONDS, "Pool.map", processor_time
    ),
)
