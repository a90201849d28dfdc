"""A short soak: everything at once under random kills; `make soak MINUTES=30` is the long one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tenfold

LIMIT = 110


def test_a_short_soak_keeps_to_its_model():
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("soak.py"), "--seconds", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tenfold.__file__).parent.parent)},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        pytest.fail(f"the soak hangs\n{out}")
    assert process.returncode == 0, out
    assert "tasks lost beyond 0" in out
    assert "messages lost beyond 0" in out
