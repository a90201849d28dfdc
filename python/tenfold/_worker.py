"""What a pool's worker process runs. It imports next to nothing: each fresh worker pays for it."""

import _signal
import os

from . import process

__all__ = ["work"]


def work(board, initializer, initargs, max_tasks, max_memory, hears_ctrl_c):
    """Be a worker.

    Ctrl-C reaches all processes of a program at once, and one traceback is enough: a worker that
    starts, waits or ends takes no notice. In a task it is the task's error.
    """
    # A worker may have workers of its own: they go when it goes.
    process.current_process()._config["tenfold_worker"] = True
    try:
        if max_memory is not None:
            _limit_memory(max_memory)
        if initializer is not None:
            _initialize(initializer, initargs, hears_ctrl_c)
    except KeyboardInterrupt:
        os._exit(1)
    except BaseException as error:
        # As long as others work, it is this worker's trouble alone.
        if board.present_workers() or board.declare_broken(error):
            raise
        os._exit(1)
    board.work(max_tasks, hears_ctrl_c)


def _initialize(initializer, initargs, hears_ctrl_c):
    if hears_ctrl_c:
        # What came before is for the parent.
        try:  # noqa: SIM105 (contextlib is not imported yet)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGINT})
        except KeyboardInterrupt:
            pass
    initializer(*initargs)
    if hears_ctrl_c:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})


def _limit_memory(max_memory):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (max_memory, hard))
