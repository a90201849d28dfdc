"""What a Manager hands out: dicts, lists, namespaces; and its own start."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.crew import clock, span, together
from bench.row import Row, Unit

__all__ = ["ROWS"]

KEYS = 1000
OPERATIONS = 5000
# So many that all processes are at work at once: the last may wake milliseconds after the first.
EACH = 30_000


def seconds_each(count: int, operation: Callable[[int], Any]) -> float:
    for i in range(count // 10):
        operation(i)
    begin = perf_counter()
    for i in range(count):
        operation(i)
    return (perf_counter() - begin) / count


def filled_dict(manager: Any) -> Any:
    shared = manager.dict()
    shared.update({i: i for i in range(KEYS)})
    return shared


def dict_set(system: Any) -> float:
    manager = system.Manager()
    shared = filled_dict(manager)
    took = seconds_each(OPERATIONS, lambda i: shared.__setitem__(i % KEYS, i))
    manager.shutdown()
    return took


def dict_get(system: Any) -> float:
    manager = system.Manager()
    shared = filled_dict(manager)
    took = seconds_each(OPERATIONS, lambda i: shared[i % KEYS])
    manager.shutdown()
    return took


def mix(shared: Any, first: int) -> None:
    for i in range(EACH):
        key = (first + i) % KEYS
        if i % 3 == 0:
            shared[key] = i
        else:
            shared[key]


def dict_mixed(system: Any) -> float:
    """One write to two reads, by each of four processes."""
    manager = system.Manager()
    shared = filled_dict(manager)
    times = together(system.Process, [(clock, (mix, shared, worker * 250)) for worker in range(4)])
    manager.shutdown()
    return 4 * EACH / span(times)


def dict_update(system: Any) -> float:
    manager = system.Manager()
    shared, news = filled_dict(manager), {i: i + 1 for i in range(KEYS)}
    took = seconds_each(500, lambda i: shared.update(news))
    manager.shutdown()
    return took


def dict_items(system: Any) -> float:
    manager = system.Manager()
    shared = filled_dict(manager)
    took = seconds_each(500, lambda i: list(shared.items()))
    manager.shutdown()
    return took


def list_append(system: Any) -> float:
    manager = system.Manager()
    shared = manager.list()
    took = seconds_each(OPERATIONS, shared.append)
    manager.shutdown()
    return took


def list_index(system: Any) -> float:
    manager = system.Manager()
    shared = manager.list(range(KEYS))
    took = seconds_each(OPERATIONS, lambda i: shared[i % KEYS])
    manager.shutdown()
    return took


def namespace(system: Any) -> float:
    """One write and one read, halved."""
    manager = system.Manager()
    shared = manager.Namespace(value=0)

    def write_and_read(i: int) -> None:
        shared.value = i
        shared.value  # noqa: B018

    took = seconds_each(OPERATIONS, write_and_read) / 2
    manager.shutdown()
    return took


def whole_life(system: Any) -> float:
    def live(i: int) -> None:
        manager = system.Manager()
        manager.dict()
        manager.shutdown()

    return seconds_each(20, live)


ROWS = (
    Row("dict-set", "Manager dict: set", Unit.SECONDS, "Manager.dict", dict_set),
    Row("dict-get", "Manager dict: get", Unit.SECONDS, "Manager.dict", dict_get),
    Row(
        "dict-mixed",
        "Manager dict: 4 processes, 1 set to 2 gets",
        Unit.PER_SECOND,
        "Manager.dict",
        dict_mixed,
    ),
    Row(
        "dict-update",
        "Manager dict: update with 1000 items",
        Unit.SECONDS,
        "Manager.dict",
        dict_update,
    ),
    Row("dict-items", "Manager dict: items() of 1000", Unit.SECONDS, "Manager.dict", dict_items),
    Row("list-append", "Manager list: append", Unit.SECONDS, "Manager.list", list_append),
    Row("list-index", "Manager list: index", Unit.SECONDS, "Manager.list", list_index),
    Row("namespace", "Manager Namespace: set or get", Unit.SECONDS, "Manager.Namespace", namespace),
    Row("start-manager", "Manager: start, one dict, shutdown", Unit.SECONDS, "Manager", whole_life),
)
