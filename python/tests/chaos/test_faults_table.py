"""The command that prints the table of docs/faults.md, by a few of its quick rows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FAULTS

import tenfold

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(100)
def test_the_table_shows_what_came_of_each_fault(tmp_path):
    document = tmp_path / "faults.md"
    document.write_text("before\n<!-- outcomes -->\nold\n<!-- end of outcomes -->\nafter\n")
    # The standard library hangs in row 7, which takes the limit.
    command = [sys.executable, ROOT / "tools/faults.py", "--rows", "7,17,21", "--limit", "8"]
    done = subprocess.run(
        [*command, "--write", document],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tenfold.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    before, rows, after = re.split(r"<!-- .*outcomes -->\n", document.read_text())
    assert (before, after) == ("before\n", "after\n")
    assert rows == done.stdout
    outcomes = {}
    for row in rows.splitlines()[2:]:
        number, _, *seen = row.strip("| ").split(" | ")
        outcomes[int(number)] = seen
    assert outcomes[7][0] == "hangs"
    assert outcomes[7][1].startswith("error: OwnerDied")
    assert outcomes[17][0].startswith("error: AssertionError: daemonic")
    assert outcomes[17][1] == "right"
    assert outcomes[21] == ["right", "right"]


def test_there_is_a_program_and_a_promise_for_each_fault():
    assert sorted(FAULTS) == list(range(1, 26))
    promised = re.findall(r"^\*\*(\d+)\.", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)
    assert sorted(map(int, promised)) == list(range(1, 26))
