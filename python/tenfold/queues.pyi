from collections.abc import Iterable
from multiprocessing import queues as std
from typing import Any, TypeVar

__all__ = ["Queue", "SimpleQueue", "JoinableQueue"]

_T = TypeVar("_T")

class Queue(std.Queue[_T]):
    # `ctx` is not optional, but the functions of the package have this signature without it.
    def __init__(self, maxsize: int = 0, *, ctx: Any = ...) -> None: ...
    def put_many(
        self, objects: Iterable[_T], block: bool = True, timeout: float | None = None
    ) -> None: ...
    def get_many(
        self, max_items: int | None = None, block: bool = True, timeout: float | None = None
    ) -> list[_T]: ...

class JoinableQueue(Queue[_T], std.JoinableQueue[_T]): ...

class SimpleQueue(std.SimpleQueue[_T]):
    def __init__(self, *, ctx: Any = ...) -> None: ...
