from collections.abc import Callable, Iterable
from multiprocessing import managers as std
from multiprocessing.context import BaseContext
from multiprocessing.managers import (
    BaseProxy as BaseProxy,
)
from multiprocessing.managers import (
    DictProxy as DictProxy,
)
from multiprocessing.managers import (
    ListProxy as ListProxy,
)
from multiprocessing.managers import (
    Namespace as Namespace,
)
from multiprocessing.managers import (
    RemoteError as RemoteError,
)
from multiprocessing.managers import (
    Token as Token,
)
from multiprocessing.managers import (
    ValueProxy as ValueProxy,
)
from typing import Any

__all__ = ["BaseManager", "SyncManager", "BaseProxy", "Token", "SharedMemoryManager"]

class Server(std.Server): ...

class BaseManager(std.BaseManager):
    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: BaseContext | None = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None: ...

class SyncManager(std.SyncManager, BaseManager):
    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: BaseContext | None = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None: ...
    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None: ...
    def Namespace(self, /, **kwds: Any) -> Namespace: ...

class SharedMemoryServer(Server, std.SharedMemoryServer): ...
class SharedMemoryManager(BaseManager, std.SharedMemoryManager): ...
