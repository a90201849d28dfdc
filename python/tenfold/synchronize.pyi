from collections.abc import Callable
from multiprocessing import synchronize as std
from multiprocessing.context import BaseContext

from tenfold._native import OwnerDied as OwnerDied

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]

class SemLock(std.SemLock): ...

class Lock(SemLock, std.Lock):
    def __init__(self, *, ctx: BaseContext) -> None: ...
    def acquire(
        self, block: bool = True, timeout: float | None = None, *, recover: bool = False
    ) -> bool: ...

class RLock(SemLock, std.RLock):
    def __init__(self, *, ctx: BaseContext) -> None: ...
    def acquire(
        self, block: bool = True, timeout: float | None = None, *, recover: bool = False
    ) -> bool: ...

class Semaphore(SemLock, std.Semaphore):
    def __init__(self, value: int = 1, *, ctx: BaseContext) -> None: ...

class BoundedSemaphore(Semaphore, std.BoundedSemaphore):
    def __init__(self, value: int = 1, *, ctx: BaseContext) -> None: ...

class Condition(std.Condition):
    def __init__(self, lock: std.Lock | std.RLock | None = None, *, ctx: BaseContext) -> None: ...

class Event(std.Event):
    def __init__(self, *, ctx: BaseContext) -> None: ...

class Barrier(std.Barrier):
    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: BaseContext,
    ) -> None: ...
