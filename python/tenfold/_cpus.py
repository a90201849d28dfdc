"""How many processors this process may keep busy."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["available_cpus"]

_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus() -> int:
    """Count the processors that affinity and control groups leave to this process; at least one."""
    count = _schedulable_cpus()
    for share in _cgroup_shares():
        count = min(count, math.ceil(share))
    return max(count, 1)


def _schedulable_cpus() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13; knows -X cpu_count, too
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _cgroup_shares() -> Iterator[float]:
    """Yield the processor limits of our control group and of those around it, in processors."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0":  # version 2
            for folder in _upwards(_CGROUPS, group):
                yield from _share(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):  # version 1
            for folder in _upwards(_CGROUPS / "cpu", group):
                quota = _words(folder / "cpu.cfs_quota_us")
                yield from _share(quota + _words(folder / "cpu.cfs_period_us"))


def _upwards(root: Path, group: str) -> Iterator[Path]:
    inside = PurePosixPath(group).relative_to("/")
    for part in (inside, *inside.parents):
        yield root / part


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _share(quota_and_period: list[str]) -> Iterator[float]:
    if len(quota_and_period) == 2:
        quota, period = quota_and_period
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
