"""How many processors this process may keep busy."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["available_cpus"]

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Count the processors that affinity and control groups leave to this process; at least one."""
    limits = [_schedulable_cpus(), *map(math.ceil, _cgroup_limits())]
    return max(min(limits), 1)


def _schedulable_cpus() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13; knows -X cpu_count, too
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _cgroup_limits() -> Iterator[float]:
    """Yield the limits of our control group and of those around it, in processors."""
    for line in _read(_MEMBERSHIP).splitlines():
        # "0::/group" in version 2, "4:cpu,cpuacct:/group" in version 1
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0":
            for folder in _upwards(_CGROUPS, group):
                yield from _limit(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(_CGROUPS / "cpu", group):
                quota = _read(folder / "cpu.cfs_quota_us")
                yield from _limit(quota + " " + _read(folder / "cpu.cfs_period_us"))


def _upwards(root: Path, group: str) -> Iterator[Path]:
    parts = PurePosixPath(group).parts[1:]
    if ".." in parts:  # our group is outside of what this container shows
        parts = ()
    for depth in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:depth])


def _limit(quota_and_period: str) -> Iterator[float]:
    match quota_and_period.split():
        case [quota, period] if quota.isdigit() and period.isdigit():  # not "max" or "-1"
            yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
