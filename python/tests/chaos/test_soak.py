"""A short soak: everything at once under random kills; `make soak MINUTES=30` is the long one."""

import os
from pathlib import Path

from companions import finish

import tenfold

LIMIT = 110


def test_a_short_soak_keeps_to_its_model():
    command = [Path(__file__).with_name("soak.py"), "--seconds", "10"]
    environment = {**os.environ, "PYTHONPATH": str(Path(tenfold.__file__).parent.parent)}
    process, out, err = finish(command, LIMIT, env=environment)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "tasks lost beyond 0" in out
    assert "messages lost beyond 0" in out
