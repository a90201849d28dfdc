"""Value and Array."""

from time import perf_counter
from typing import Any

from bench.row import Row, Unit

__all__ = ["ROWS"]

OPERATIONS = 100_000
LENGTH = 1_000_000


def value_add(system: Any) -> float:
    value = system.Value("i", 0)
    begin = perf_counter()
    for _ in range(OPERATIONS):
        with value.get_lock():
            value.value += 1
    took = perf_counter() - begin
    if value.value != OPERATIONS:
        raise ValueError("an addition was lost")
    return took / OPERATIONS


def array_element(system: Any) -> float:
    """One write and one read, halved."""
    array = system.Array("i", 1000)
    begin = perf_counter()
    for i in range(OPERATIONS):
        array[i % 1000] = i
        array[i % 1000]
    return (perf_counter() - begin) / OPERATIONS / 2


def array_slice(system: Any) -> float:
    """All elements out, and in again."""
    array = system.Array("i", range(LENGTH))
    begin = perf_counter()
    for _ in range(5):
        array[:] = array[:]
    return (perf_counter() - begin) / 5


ROWS = (
    Row("value-add", "Value: value += 1 under its lock", Unit.SECONDS, "Value", value_add),
    Row("array-element", "Array: set or get an element", Unit.SECONDS, "Array", array_element),
    Row("array-slice", "Array: slice of 10^6 out and in", Unit.SECONDS, "Array", array_slice),
)
