"""What a pool of eight costs while it does nothing."""

import time
from typing import Any

from bench.processes import memory_of, own, processor_time_of
from bench.row import Row, Unit
from bench.rows.pools import end
from bench.tasks import tiny

__all__ = ["ROWS"]

WORKERS = 8
REST = 10.0


def idle_pool(system: Any) -> Any:
    pool = system.Pool(WORKERS)
    pool.map(tiny, range(1000))
    time.sleep(1.0)
    return pool


def memory(system: Any) -> float:
    pool = idle_pool(system)
    total = sum(memory_of(pid) for pid in own())
    end(pool)
    return float(total)


def processor_time(system: Any) -> float:
    pool = idle_pool(system)
    before = sum(processor_time_of(pid) for pid in own())
    time.sleep(REST)
    used = sum(processor_time_of(pid) for pid in own()) - before
    end(pool)
    return max(used, 0.0)


ROWS = (
    Row("idle-memory", "idle Pool(8): memory of all its processes", Unit.BYTES, "Pool.map", memory),
    Row(
        "idle-cpu", "idle Pool(8): processor time in 10 s", Unit.SECONDS, "Pool.map", processor_time
    ),
)
