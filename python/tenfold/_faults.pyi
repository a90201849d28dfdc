from multiprocessing import context

__all__ = ["BrokenPool", "PoolTerminated", "TaskCancelled", "TaskTimeout", "WorkerDied"]

class _OfTask(context.ProcessError):
    index: int
    def __init__(self, index: int, *args: object) -> None: ...

class WorkerDied(_OfTask):
    pid: int
    exitcode: int | None
    signal: int | None
    def __init__(self, index: int, pid: int, exitcode: int | None) -> None: ...

class TaskTimeout(_OfTask, context.TimeoutError, TimeoutError): ...
class TaskCancelled(_OfTask): ...
class PoolTerminated(context.ProcessError): ...

class BrokenPool(context.ProcessError):
    reason: BaseException
    def __init__(self, reason: BaseException) -> None: ...
