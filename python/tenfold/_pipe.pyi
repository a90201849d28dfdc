from multiprocessing.connection import Connection as _Standard
from typing import Any

__all__ = ["Connection", "Pipe"]

class Connection(_Standard[Any, Any]): ...

def Pipe(duplex: bool = True) -> tuple[Connection, Connection]: ...
