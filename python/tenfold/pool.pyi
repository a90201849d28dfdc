from collections.abc import Callable, Iterable, Mapping
from multiprocessing import pool as std
from typing import Any, Final, TypeVar

from tenfold._faults import (
    BrokenPool as BrokenPool,
)
from tenfold._faults import (
    PoolTerminated as PoolTerminated,
)
from tenfold._faults import (
    TaskCancelled as TaskCancelled,
)
from tenfold._faults import (
    TaskTimeout as TaskTimeout,
)
from tenfold._faults import (
    WorkerDied as WorkerDied,
)
from tenfold._results import (
    ApplyResult as ApplyResult,
)
from tenfold._results import (
    AsyncResult as AsyncResult,
)
from tenfold._results import (
    IMapIterator as IMapIterator,
)
from tenfold._results import (
    IMapUnorderedIterator as IMapUnorderedIterator,
)
from tenfold._results import (
    MapResult as MapResult,
)

__all__ = ["Pool", "ThreadPool"]

_S = TypeVar("_S")
_T = TypeVar("_T")

INIT: Final = "INIT"
RUN: Final = "RUN"
CLOSE: Final = "CLOSE"
TERMINATE: Final = "TERMINATE"

class Pool(std.Pool):
    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any | None = None,
        *,
        max_memory: int | None = None,
    ) -> None: ...
    def apply(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> _T: ...
    def apply_async(
        self,
        func: Callable[..., _T],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[_T], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> AsyncResult[_T]: ...
    def map(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> list[_T]: ...
    def map_async(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> MapResult[_T]: ...
    def starmap(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> list[_T]: ...
    def starmap_async(
        self,
        func: Callable[..., _T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[_T]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> MapResult[_T]: ...
    def imap(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        buffersize: int | None = None,
    ) -> IMapIterator[_T]: ...
    def imap_unordered(  # type: ignore[override]
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        chunksize: int = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        buffersize: int | None = None,
    ) -> IMapIterator[_T]: ...

class ThreadPool(std.ThreadPool, Pool):
    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None: ...
