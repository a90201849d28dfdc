from tenfold import context
from tenfold import process as process
from tenfold import reduction as reducer
from tenfold._alias import install as install
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
from tenfold._native import (
    FamilyEnded as FamilyEnded,
)
from tenfold._native import (
    HeapFull as HeapFull,
)
from tenfold._native import (
    OwnerDied as OwnerDied,
)
from tenfold._native import (
    StaleHandle as StaleHandle,
)
from tenfold._native import (
    heap_stats as heap_stats,
)
from tenfold._native import (
    set_heap_limit as set_heap_limit,
)
from tenfold.context import (
    AuthenticationError as AuthenticationError,
)
from tenfold.context import (
    BufferTooShort as BufferTooShort,
)
from tenfold.context import (
    Process as Process,
)
from tenfold.context import (
    ProcessError as ProcessError,
)
from tenfold.context import (
    TimeoutError as TimeoutError,
)
from tenfold.process import (
    active_children as active_children,
)
from tenfold.process import (
    current_process as current_process,
)
from tenfold.process import (
    parent_process as parent_process,
)

# Functions that return these; as in typeshed, classes here, so that `Queue[int]` is a type.
from tenfold.queues import (
    JoinableQueue as JoinableQueue,
)
from tenfold.queues import (
    Queue as Queue,
)
from tenfold.queues import (
    SimpleQueue as SimpleQueue,
)

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BrokenPool",
    "BufferTooShort",
    "Condition",
    "Event",
    "FamilyEnded",
    "HeapFull",
    "JoinableQueue",
    "Lock",
    "Manager",
    "OwnerDied",
    "Pipe",
    "Pool",
    "PoolTerminated",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "StaleHandle",
    "TaskCancelled",
    "TaskTimeout",
    "TimeoutError",
    "Value",
    "WorkerDied",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "heap_stats",
    "install",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_heap_limit",
    "set_start_method",
]

SUBDEBUG: int
SUBWARNING: int

Array = context._default_context.Array
Barrier = context._default_context.Barrier
BoundedSemaphore = context._default_context.BoundedSemaphore
Condition = context._default_context.Condition
Event = context._default_context.Event
Lock = context._default_context.Lock
Manager = context._default_context.Manager
Pipe = context._default_context.Pipe
Pool = context._default_context.Pool
RLock = context._default_context.RLock
RawArray = context._default_context.RawArray
RawValue = context._default_context.RawValue
Semaphore = context._default_context.Semaphore
Value = context._default_context.Value
allow_connection_pickling = context._default_context.allow_connection_pickling
cpu_count = context._default_context.cpu_count
freeze_support = context._default_context.freeze_support
get_all_start_methods = context._default_context.get_all_start_methods
get_context = context._default_context.get_context
get_logger = context._default_context.get_logger
get_start_method = context._default_context.get_start_method
log_to_stderr = context._default_context.log_to_stderr
set_executable = context._default_context.set_executable
set_forkserver_preload = context._default_context.set_forkserver_preload
set_start_method = context._default_context.set_start_method
