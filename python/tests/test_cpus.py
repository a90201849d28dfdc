"""A pool without a number has as many workers as this process has processors."""

import os

import pytest

from tenfold import _cpus


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A function that sets the control groups that this process seems to be in."""

    def place(membership, files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        listing = tmp_path / "membership"
        listing.write_text(membership)
        monkeypatch.setattr(_cpus, "_CGROUPS", tmp_path)
        monkeypatch.setattr(_cpus, "_MEMBERSHIP", listing)
        monkeypatch.setattr(_cpus, "_schedulable_cpus", lambda: 16)

    return place


@pytest.mark.parametrize(
    "membership, files, count",
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/../../elsewhere\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "4:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "400000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            16,
        ),
        ("4:memory:/\n", {"cpu.max": "200000 100000\n"}, 16),
        ("nonsense", {}, 16),
    ],
)
def test_control_groups(groups, membership, files, count):
    groups(membership, files)
    assert _cpus.available_cpus() == count


def test_affinity(python):
    one = min(os.sched_getaffinity(0))
    python(f"""
import os
os.sched_setaffinity(0, [{one}])
import tenfold
with tenfold.Pool() as pool:
    assert pool._processes == 1
""")
