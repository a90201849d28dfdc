"""What a pool's worker process runs. It imports next to nothing: each fresh worker pays for it."""

import os

from . import process

__all__ = ["work"]


def work(board, initializer, initargs, max_tasks, max_memory):
    """Be a worker."""
    # A worker may have workers of its own: they go when it goes.
    process.current_process()._config["tenfold_worker"] = True
    try:
        if max_memory is not None:
            _limit_memory(max_memory)
        if initializer is not None:
            initializer(*initargs)
    except BaseException as error:
        if board.declare_broken(error):
            raise
        os._exit(1)
    board.work(max_tasks)


def _limit_memory(max_memory):
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (max_memory, hard))
