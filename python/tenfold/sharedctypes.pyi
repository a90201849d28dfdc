from multiprocessing import sharedctypes as std
from multiprocessing.sharedctypes import (
    Array as Array,
)
from multiprocessing.sharedctypes import (
    RawArray as RawArray,
)
from multiprocessing.sharedctypes import (
    RawValue as RawValue,
)
from multiprocessing.sharedctypes import (
    Value as Value,
)
from multiprocessing.sharedctypes import (
    copy as copy,
)
from multiprocessing.sharedctypes import (
    synchronized as synchronized,
)
from typing import Any, TypeVar

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

_T = TypeVar("_T")

class Memory:
    def __init__(self, size: int) -> None: ...
    def __len__(self) -> int: ...
    def create_memoryview(self) -> memoryview: ...

class SynchronizedBase(std.SynchronizedBase[Any]): ...
class Synchronized(SynchronizedBase, std.Synchronized[_T]): ...  # type: ignore[misc]
class SynchronizedArray(SynchronizedBase, std.SynchronizedArray[_T]): ...  # type: ignore[misc]
class SynchronizedString(SynchronizedArray[bytes], std.SynchronizedString): ...  # type: ignore[misc]
