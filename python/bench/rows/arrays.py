"""Arrays into a pool and out of it."""

from time import perf_counter
from typing import Any

import numpy as np

from bench.row import Row, Unit
from bench.rows.pools import end, expect, warm_pool

__all__ = ["ROWS"]

COUNT = 64
LENGTH = 1 << 20
BYTES = COUNT * LENGTH * 8


def total(array: Any) -> float:
    return float(array.sum())


def make(value: int) -> Any:
    return np.full(LENGTH, float(value))


def arrays_in(system: Any) -> float:
    pool, arrays = warm_pool(system), [make(i) for i in range(COUNT)]
    pool.map(total, arrays[:4])
    begin = perf_counter()
    results = pool.map(total, arrays)
    took = perf_counter() - begin
    expect(results == [float(i * LENGTH) for i in range(COUNT)])
    end(pool)
    return BYTES / took


def arrays_out(system: Any) -> float:
    pool = warm_pool(system)
    pool.map(make, range(4))
    begin = perf_counter()
    results = pool.map(make, range(COUNT))
    took = perf_counter() - begin
    expect([array[-1] for array in results] == list(range(COUNT)))
    end(pool)
    return BYTES / took


ROWS = (
    Row(
        "pool-arrays-in",
        "map over 64 arrays of 8 MiB",
        Unit.BYTES_PER_SECOND,
        "Pool.map",
        arrays_in,
    ),
    Row("pool-arrays-out", "64 results of 8 MiB", Unit.BYTES_PER_SECOND, "Pool.map", arrays_out),
)
