"""The stubs: good for what users write, and true to what is there at run time."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "python" / "tests" / "typing_sample.py"


def run(folder, *command):
    """Run Python in a folder from which no source tree is found; return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(300)
def test_sample_is_typed(tmp_path):
    """An expected error that is none is an error, too."""
    run(tmp_path, "-m", "mypy", "--strict", SAMPLE)


def test_sample_runs(tmp_path):
    assert run(tmp_path, SAMPLE) == ""


@pytest.mark.timeout(300)
def test_stubs_are_true(tmp_path):
    run(
        tmp_path,
        *("-m", "mypy.stubtest", "tenfold", "--concise"),
        *("--mypy-config-file", PROJECT / "pyproject.toml"),
        *("--allowlist", PROJECT / "python" / "stubtest-allowlist.txt"),
    )
