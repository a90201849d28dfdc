"""Pools of two workers that are there before the clock starts.

Tiny tasks, and how well the workers share work.
"""

from time import perf_counter
from typing import Any

from bench.row import Row, Unit
from bench.tasks import pair, spin, tiny

__all__ = ["ROWS"]

WORKERS = 2
MANY = 1_000_000
SINGLE = 50_000
CALLS = 3_000
# Seconds of processor time that each task of the last rows takes.
SPINS = 2_000
SPIN = 0.001
SKEWED = [0.04 * 1.04**-i for i in range(400)][::-1]


def warm_pool(system: Any) -> Any:
    pool = system.Pool(WORKERS)
    pool.map(tiny, range(100))
    return pool


def end(pool: Any) -> None:
    pool.close()
    pool.join()


def expect(good: bool) -> None:
    if not good:
        raise ValueError("wrong results")


def map_tiny(system: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    results = pool.map(tiny, range(MANY))
    took = perf_counter() - begin
    expect(results == list(range(MANY)))
    end(pool)
    return MANY / took


def starmap_tiny(system: Any) -> float:
    pool, items = warm_pool(system), [(i, i) for i in range(MANY)]
    begin = perf_counter()
    results = pool.starmap(pair, items)
    took = perf_counter() - begin
    expect(results == list(range(MANY)))
    end(pool)
    return MANY / took


def map_one_by_one(system: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    results = pool.map(tiny, range(SINGLE), chunksize=1)
    took = perf_counter() - begin
    expect(results == list(range(SINGLE)))
    end(pool)
    return SINGLE / took


def imap(system: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    results = list(pool.imap(tiny, range(SINGLE)))
    took = perf_counter() - begin
    expect(results == list(range(SINGLE)))
    end(pool)
    return SINGLE / took


def imap_unordered(system: Any) -> float:
    pool = system.Pool(WORKERS)
    # Not warmed by map: mpire fails if both are used with one pool.
    list(pool.imap_unordered(tiny, range(100)))
    begin = perf_counter()
    results = list(pool.imap_unordered(tiny, range(SINGLE)))
    took = perf_counter() - begin
    expect(sorted(results) == list(range(SINGLE)))
    end(pool)
    return SINGLE / took


def apply(system: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    for i in range(CALLS):
        pool.apply(tiny, (i,))
    took = perf_counter() - begin
    end(pool)
    return took / CALLS


def apply_async(system: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    pending = [pool.apply_async(tiny, (i,)) for i in range(SINGLE)]
    results = [result.get() for result in pending]
    took = perf_counter() - begin
    expect(results == list(range(SINGLE)))
    end(pool)
    return SINGLE / took


def share_of_ideal(system: Any, durations: list[float], **options: Any) -> float:
    pool = warm_pool(system)
    begin = perf_counter()
    pool.map(spin, durations, **options)
    took = perf_counter() - begin
    end(pool)
    return sum(durations) / WORKERS / took


def even(system: Any) -> float:
    return share_of_ideal(system, [SPIN] * SPINS)


def even_one_by_one(system: Any) -> float:
    return share_of_ideal(system, [SPIN] * SPINS, chunksize=1)


def skewed(system: Any) -> float:
    """Each task takes 4 % longer than the one before."""
    return share_of_ideal(system, SKEWED)


ROWS = (
    Row("pool-map", "map of 10^6 tiny tasks", Unit.PER_SECOND, "Pool.map", map_tiny),
    Row(
        "pool-starmap", "starmap of 10^6 tiny tasks", Unit.PER_SECOND, "Pool.starmap", starmap_tiny
    ),
    Row(
        "pool-chunksize-1",
        "map of 50 000 tiny tasks, chunksize=1",
        Unit.PER_SECOND,
        "Pool.chunks",
        map_one_by_one,
    ),
    Row("pool-imap", "imap of 50 000 tiny tasks", Unit.PER_SECOND, "Pool.imap", imap),
    Row(
        "pool-imap-unordered",
        "imap_unordered of 50 000",
        Unit.PER_SECOND,
        "Pool.imap_unordered",
        imap_unordered,
    ),
    Row("pool-apply", "apply, one after the other", Unit.SECONDS, "Pool.apply", apply),
    Row(
        "pool-apply-async",
        "50 000 apply_async, then get",
        Unit.PER_SECOND,
        "Pool.apply_async",
        apply_async,
    ),
    Row("pool-even", "2000 tasks of 1 ms: share of the ideal", Unit.SHARE, "Pool.map", even),
    Row(
        "pool-even-chunksize-1",
        "the same with chunksize=1",
        Unit.SHARE,
        "Pool.chunks",
        even_one_by_one,
    ),
    Row("pool-skewed", "400 tasks of growing length: share", Unit.SHARE, "Pool.map", skewed),
)
