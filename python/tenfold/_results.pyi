from collections.abc import Callable, Generator
from multiprocessing import pool as std
from typing import Any, Self, TypeVar

from tenfold.pool import Pool

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult"]

_T = TypeVar("_T")

class ApplyResult(std.ApplyResult[_T]):
    def __init__(
        self,
        pool: Pool,
        callback: Callable[[_T], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None: ...
    def cancel(self) -> bool: ...
    def __await__(self) -> Generator[Any, None, _T]: ...

AsyncResult = ApplyResult

class MapResult(ApplyResult[list[_T]]): ...

class IMapIterator(std.IMapIterator[_T]):
    def __init__(self, pool: Pool) -> None: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> _T: ...

class IMapUnorderedIterator(IMapIterator[_T]): ...
