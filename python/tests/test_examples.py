"""The ten examples print what the tutorial prints, leave nothing on stderr and end well."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "examples" / "python"

SQUARES = [i * i for i in range(10)]
EXACT = {
    "01_pool_map": "[1, 4, 9]\n",
    "03_threads_share": "".join(f"{list(range(n))}\n" for n in [*range(1, 11), 10]),
    "05_queue": "[42, None, 'hello']\n",
    "07_value_array": "3.1415927\n[0, -1, -2, -3, -4, -5, -6, -7, -8, -9]\n",
    "08_manager": "{1: '1', '2': 2, 0.25: None}\n[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]\n",
    "09_apply_async": f"100\n{SQUARES}\n",
    "10_apply": "".join(f"{square}\n" for square in SQUARES),
}
IN_ANY_ORDER = {
    "04_processes_do_not_share": [*(f"[{n}]" for n in range(10)), "parent []"],
    "06_lock": [f"hello world {n}" for n in range(10)],
}


def run(program):
    """Run a program; return what it printed and its process id."""
    with subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert errors == ""
    assert process.returncode == 0
    return output, process.pid


def test_all_are_tested():
    found = {path.stem for path in EXAMPLES.glob("*.py")}
    assert found == {*EXACT, *IN_ANY_ORDER, "02_process_info"}


@pytest.mark.parametrize("name", EXACT)
def test_output(name):
    output, _ = run(EXAMPLES / f"{name}.py")
    assert output == EXACT[name]


@pytest.mark.parametrize("name", IN_ANY_ORDER)
def test_lines(name):
    output, _ = run(EXAMPLES / f"{name}.py")
    assert sorted(output.splitlines()) == sorted(IN_ANY_ORDER[name])


def test_process_info():
    output, pid = run(EXAMPLES / "02_process_info.py")
    lines = output.splitlines()
    assert lines[:2] == ["main line", "module name: __main__"]
    assert (lines[4], lines[8]) == ("function f", "hello bob")
    assert lines[5] in ("module name: __main__", "module name: __mp_main__")
    numbers = [int(re.search(r": (\d+)$", lines[i])[1]) for i in (2, 3, 6, 7)]
    parent, main, child_parent, child = numbers
    assert (parent, main) == (os.getpid(), pid)
    assert child not in (main, parent)
    assert child_parent != parent


def test_readme(tmp_path):
    readme = (PROJECT / "README.md").read_text()
    program = tmp_path / "readme.py"
    program.write_text(re.search(r"^```python\n(.*?)^```$", readme, re.M | re.S)[1])
    output, _ = run(program)
    assert output == "hello bob\nhello world 1\n"
