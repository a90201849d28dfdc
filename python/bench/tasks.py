"""What workers are sent.

Fresh interpreters import this module before they can begin, so it imports next to nothing.
"""

from time import thread_time

__all__ = ["nothing", "pair", "spin", "tiny"]


def nothing() -> None:
    pass


def tiny(x: int) -> int:
    return x


def pair(x: int, y: int) -> int:
    return x


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    end = thread_time() + seconds
    while thread_time() < end:
        pass
