"""What /proc tells of processes: which belong together, and what they use."""

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["end_session", "memory_of", "own", "processor_time_of"]

# Of the fields in /proc/PID/stat that follow the name.
STATE, PARENT, SESSION, USER_TIME, SYSTEM_TIME = 0, 1, 3, 11, 12


def _stat(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _all() -> dict[int, list[str]]:
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found[int(pid)] = _stat(pid)
    return found


def own() -> list[int]:
    """This process, its descendants, and whatever else is in its session."""
    stats, session = _all(), str(os.getsid(0))
    found = {os.getpid(), *(pid for pid, stat in stats.items() if stat[SESSION] == session)}
    while more := {pid for pid, stat in stats.items() if int(stat[PARENT]) in found} - found:
        found |= more
    return sorted(found)


def end_session(leader: int) -> None:
    """Kill what is in the session of a process, and what that starts meanwhile, until all is gone.

    Some systems' servers and workers are in groups of their own, and outlive who started them.
    """
    while alive := [
        pid
        for pid, stat in _all().items()
        if stat[SESSION] == str(leader) and stat[STATE] not in "ZX"
    ]:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def memory_of(pid: int) -> int:
    """Bytes of a process, of shared pages its part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def processor_time_of(pid: int) -> float:
    """Seconds that a process has computed."""
    stat = _stat(pid)
    return (int(stat[USER_TIME]) + int(stat[SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")
