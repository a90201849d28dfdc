"""The benchmark's arithmetic, its picture, and a row from end to end."""

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
sys.path.append(str(FOLDER))

from bench import picture, report, systems  # noqa: E402
from bench.row import Row, Unit  # noqa: E402
from bench.rows import ALL, DEMO  # noqa: E402
from bench.summary import RowResult, SystemResult  # noqa: E402


def result(unit, **medians):
    row = Row("name", "title <of a row>", unit, "Queue", lambda system: 0.0)
    found = [
        SystemResult(name.replace("_", "-"), name == "floor", [value])
        for name, value in medians.items()
    ]
    return RowResult(row, found, {"ray": "no Queue"})


def test_more_is_better():
    measured = result(Unit.PER_SECOND, tenfold=20.0, multiprocessing=2.0, loky=4.0, floor=99.0)
    assert measured.ratio("tenfold", "multiprocessing") == 10
    assert measured.best_peer() == "loky"


def test_less_is_better():
    measured = result(Unit.SECONDS, tenfold=2.0, multiprocessing=20.0, loky=4.0, mpire=3.0)
    assert measured.ratio("tenfold", "multiprocessing") == 10
    assert measured.best_peer() == "mpire"


def test_nothing_to_compare():
    measured = result(Unit.SECONDS, tenfold=0.0, multiprocessing=0.1)
    assert measured.ratio("tenfold", "multiprocessing") is None
    assert measured.best_peer() is None


def test_spread():
    assert SystemResult("x", samples=[1.0, 4.0, 2.0]).spread == 1.5
    assert SystemResult("x", samples=[1.0]).spread is None


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.PER_SECOND, 12_345_678.0, "12.3 M/s"),
        (Unit.SECONDS, 19.9e-9, "19.9 ns"),
        (Unit.SECONDS, 0.0, "0"),
        (Unit.BYTES_PER_SECOND, 5.43e9, "5.43 GB/s"),
        (Unit.BYTES, 30 * 2**20, "30.0 MiB"),
        (Unit.SHARE, 0.975, "97.5 %"),
    ],
)
def test_figures(unit, value, text):
    assert report.figure(unit, value) == text


def test_picture(tmp_path):
    numbers = tmp_path / "numbers.json"
    rows = [result(Unit.SECONDS, tenfold=0.001, multiprocessing=1.0, faster_fifo=0.0005)]
    report.write_rows(numbers, rows, 1)
    picture.draw(numbers)
    drawn = xml.etree.ElementTree.parse(tmp_path / "numbers.svg")
    texts = [element.text for element in drawn.iter() if element.text]
    assert "x1000" in texts
    assert "x0.50 faster-fifo" in texts


def test_names():
    names = [row.name for row in ALL]
    assert len(set(names)) == len(names)
    assert set(names) >= DEMO
    assert {row.needs for row in ALL} >= {
        need for system in systems.ALL for need in system.offers or () if need != "Pool"
    }


def test_whole_row(tmp_path):
    """A row in fresh processes, with a floor, and a peer that lacks what it needs."""
    command = [sys.executable, FOLDER / "bench", "--rows", "start-process-fork", "--repeat", "2"]
    command += ["--peers", "joblib", "--json", tmp_path / "b.json"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=100)
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    measured = next(row for row in rows if row["name"] == "start-process-fork")
    assert all(system["error"] is None for system in measured["systems"])
    assert [len(system["samples"]) for system in measured["systems"]] == [2, 2, 2]
    assert [system["floor"] for system in measured["systems"]] == [False, False, True]
    assert "joblib (no Process)" in printed.stdout
    xml.etree.ElementTree.parse(tmp_path / "b.svg")
