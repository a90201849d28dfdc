from collections.abc import Callable, Iterable
from multiprocessing import context as std
from multiprocessing import synchronize as _synchronize
from multiprocessing.context import (
    AuthenticationError as AuthenticationError,
)
from multiprocessing.context import (
    BufferTooShort as BufferTooShort,
)
from multiprocessing.context import (
    ProcessError as ProcessError,
)
from multiprocessing.context import (
    TimeoutError as TimeoutError,
)
from multiprocessing.context import (
    assert_spawning as assert_spawning,
)
from multiprocessing.context import (
    get_spawning_popen as get_spawning_popen,
)
from multiprocessing.context import (
    set_spawning_popen as set_spawning_popen,
)
from typing import Any, ClassVar, Literal, overload

from tenfold import pool, process, queues, synchronize
from tenfold.managers import SyncManager

__all__: list[str]

class BaseContext(std.BaseContext):
    def Manager(self) -> SyncManager: ...
    def Lock(self) -> synchronize.Lock: ...
    def RLock(self) -> synchronize.RLock: ...
    def Condition(
        self, lock: _synchronize.Lock | _synchronize.RLock | None = None
    ) -> synchronize.Condition: ...
    def Semaphore(self, value: int = 1) -> synchronize.Semaphore: ...
    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore: ...
    def Event(self) -> synchronize.Event: ...
    def Barrier(
        self,
        parties: int,
        action: Callable[..., object] | None = None,
        timeout: float | None = None,
    ) -> synchronize.Barrier: ...
    def Queue(self, maxsize: int = 0) -> queues.Queue[Any]: ...
    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue[Any]: ...
    def SimpleQueue(self) -> queues.SimpleQueue[Any]: ...
    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        max_memory: int | None = None,
    ) -> pool.Pool: ...
    @overload  # type: ignore[override]
    def get_context(self, method: None = None) -> DefaultContext: ...
    @overload
    def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...
    @overload
    def get_context(self, method: Literal["fork"]) -> ForkContext: ...
    @overload
    def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...
    @overload
    def get_context(self, method: str) -> BaseContext: ...

class BaseProcess(process.BaseProcess): ...
class Process(BaseProcess, std.Process): ...
class ForkProcess(BaseProcess, std.ForkProcess): ...
class SpawnProcess(BaseProcess, std.SpawnProcess): ...
class ForkServerProcess(BaseProcess, std.ForkServerProcess): ...

class DefaultContext(BaseContext):
    Process: ClassVar[type[Process]]
    def __init__(self, context: BaseContext) -> None: ...
    def get_all_start_methods(self) -> list[str]: ...

class ForkContext(BaseContext):
    _name: str
    Process: ClassVar[type[ForkProcess]]

class SpawnContext(BaseContext):
    _name: str
    Process: ClassVar[type[SpawnProcess]]

class ForkServerContext(BaseContext):
    _name: str
    Process: ClassVar[type[ForkServerProcess]]

_default_context: DefaultContext
