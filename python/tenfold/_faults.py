"""What may become of a task beside a result, and of a pool that cannot go on."""

from ._original import original

__all__ = ["BrokenPool", "PoolTerminated", "TaskCancelled", "TaskTimeout", "WorkerDied"]

_context = original("context")


class _OfTask(_context.ProcessError):
    """The fate of one task: `index` is its place among the inputs of its call."""

    def __init__(self, index, *args):
        super().__init__(index, *args)
        self.index = index


class WorkerDied(_OfTask):
    """The worker that ran a task was killed, crashed or exited; the pool and all other tasks go on.

    `pid` is the worker's, `exitcode` as that of a process: negative for a signal, None if nobody
    knows; `signal` is the signal's number or None.
    """

    def __init__(self, index, pid, exitcode):
        super().__init__(index, pid, exitcode)
        self.pid = pid
        self.exitcode = exitcode
        self.signal = -exitcode if exitcode is not None and exitcode < 0 else None

    def __str__(self):
        return (
            f"task {self.index} is lost: its worker (pid {self.pid}) {self._how()}. "
            "The other tasks are not affected; retries=1 has a task tried again"
        )

    def _how(self):
        if self.exitcode is None:
            return "died, and nobody saw how"
        if self.signal is None:
            return f"exited with code {self.exitcode} while it ran the task"
        import signal

        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = "unknown"
        cause = _CAUSES.get(name)
        return f"was killed by signal {self.signal} ({name}{': ' + cause if cause else ''})"


_CAUSES = {
    "SIGKILL": "by somebody, or by the kernel for want of memory",
    "SIGSEGV": "a bad memory access or a stack overflow in C code; faulthandler shows where",
    "SIGBUS": "a bad memory access, or a full file system under a mapped file",
    "SIGABRT": "an abort in C code, with a message on standard error",
    "SIGFPE": "an arithmetic error in C code",
    "SIGTERM": "by somebody who asked it to end",
}


class TaskTimeout(_OfTask, _context.TimeoutError, TimeoutError):
    """A task ran longer than its `timeout`, and its worker was killed."""

    def __str__(self):
        return f"task {self.index} ran longer than its timeout; its worker was killed"


class TaskCancelled(_OfTask):
    """A task was cancelled before it had a result."""

    def __str__(self):
        return f"task {self.index} was cancelled"


class PoolTerminated(_context.ProcessError):
    """The pool was terminated before a task had a result."""

    def __str__(self):
        return "the pool was terminated before this task had a result"


class BrokenPool(_context.ProcessError):
    """A pool's workers cannot start; `reason` is the exception that tells why."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason
        self.__cause__ = reason

    def __str__(self):
        return f"the pool's workers cannot start: {type(self.reason).__name__}: {self.reason}"


# The rest is called by the native half: here, and in the worker.


def with_remote_traceback(exception, text):
    """Return an exception that a task has raised, the traceback in the worker as its cause."""
    exception.__cause__ = _remote_traceback(text)
    return exception


def unsent(pair, text):
    """Return the exception for what could not be pickled; `pair` is why, and what it was."""
    error_class = original("pool").MaybeEncodingError
    exception = error_class.__new__(error_class, *pair)
    exception.exc, exception.value = pair
    exception.__cause__ = _remote_traceback(text)
    return exception


def unreadable(reason, text):
    """Return the exception for one that a task has raised and that cannot be unpickled here."""
    lines = text.strip().splitlines()
    return unsent((repr(reason), lines[-1] if lines else "an exception"), text)


def name_limits(exception):
    """Have a MemoryError say which limits hold in this process."""
    import resource

    limits = []
    for name, what in (("RLIMIT_AS", "address space"), ("RLIMIT_DATA", "private memory")):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            limits.append(f"{limit} bytes of {what} ({name})")
    text = "the worker has no memory left"
    if limits:
        text += "; its limit is " + " and ".join(limits)
    if exception.args:
        exception.add_note(text)
    else:
        exception.args = (text,)


def _remote_traceback(text):
    return original("pool").RemoteTraceback(f'\n"""\n{text}"""')


# Programs know them by the package's name.
for _fault in (BrokenPool, PoolTerminated, TaskCancelled, TaskTimeout, WorkerDied):
    _fault.__module__ = __package__
