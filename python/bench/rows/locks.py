"""Locks and the other ways to wait for each other."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.crew import Job, clock, span, together
from bench.row import Row, Unit

__all__ = ["ROWS"]

HOLDS = 200_000
TURNS = 4_000


def hold(lock: Any, count: int) -> None:
    acquire, release = lock.acquire, lock.release
    for _ in range(count):
        acquire()
        release()


def hold_by_with(lock: Any, count: int) -> None:
    for _ in range(count):
        with lock:
            pass


def uncontended(system: Any) -> float:
    begin, end = clock(hold, system.Lock(), HOLDS)
    return (end - begin) / HOLDS


def uncontended_with(system: Any) -> float:
    begin, end = clock(hold_by_with, system.Lock(), HOLDS)
    return (end - begin) / HOLDS


def add(lock: Any, number: Any, count: int) -> None:
    for _ in range(count):
        with lock:
            number.value += 1


def contended(processes: int) -> Callable[[Any], float]:
    """Seconds for each addition, whoever makes it."""

    def measure(system: Any) -> float:
        lock, number, each = system.Lock(), system.RawValue("i", 0), HOLDS // processes
        jobs: list[Job] = [(clock, (add, lock, number, each)) for _ in range(processes)]
        times = together(system.Process, jobs)
        if number.value != each * processes:
            raise ValueError("an addition was lost")
        return span(times) / (each * processes)

    return measure


def semaphore(system: Any) -> float:
    begin, end = clock(hold, system.Semaphore(2), HOLDS)
    return (end - begin) / HOLDS


def take_turns(condition: Any, turn: Any, mine: int) -> float:
    begin = perf_counter()
    for _ in range(TURNS):
        with condition:
            while turn.value != mine:
                condition.wait()
            turn.value = 1 - mine
            condition.notify()
    return (perf_counter() - begin) / TURNS


def condition(system: Any) -> float:
    shared, turn = system.Condition(), system.RawValue("i", 0)
    seconds: float = together(
        system.Process, [(take_turns, (shared, turn, mine)) for mine in (0, 1)]
    )[0]
    return seconds


def set_and_wait(mine: Any, other: Any, begins: bool) -> float:
    begin = perf_counter()
    for _ in range(TURNS):
        if begins:
            other.set()
        mine.wait()
        mine.clear()
        if not begins:
            other.set()
    return (perf_counter() - begin) / TURNS


def event(system: Any) -> float:
    one, two = system.Event(), system.Event()
    jobs = [(set_and_wait, (one, two, True)), (set_and_wait, (two, one, False))]
    seconds: float = together(system.Process, jobs)[0]
    return seconds


def meet(barrier: Any) -> float:
    begin = perf_counter()
    for _ in range(TURNS):
        barrier.wait()
    return (perf_counter() - begin) / TURNS


def barrier(system: Any) -> float:
    shared = system.Barrier(2)
    seconds: float = together(system.Process, [(meet, (shared,)) for _ in range(2)])[0]
    return seconds


ROWS = (
    Row("lock-1", "Lock: acquire and release, 1 process", Unit.SECONDS, "Lock", uncontended),
    Row("lock-with", "Lock: with, 1 process", Unit.SECONDS, "Lock", uncontended_with),
    Row("lock-2", "Lock: 2 processes add to a RawValue", Unit.SECONDS, "Lock", contended(2)),
    Row("lock-4", "Lock: 4 processes add to a RawValue", Unit.SECONDS, "Lock", contended(4)),
    Row("semaphore", "Semaphore: acquire and release", Unit.SECONDS, "Semaphore", semaphore),
    Row("condition", "Condition: there and back", Unit.SECONDS, "Condition", condition),
    Row("event", "Event: there and back", Unit.SECONDS, "Event", event),
    Row("barrier", "Barrier of 2: one meeting", Unit.SECONDS, "Barrier", barrier),
)
