#!/usr/bin/env python3
"""List the places where a death could hurt: where each is in the code, and which tests kill there.

A point without a place in the code or without a test is an error."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
POINTS = ROOT / "crates/tenfold-shm/src/kill_point.rs"


def main() -> int:
    points = re.findall(r'^    (\w+) = "([\w.-]+)",$', POINTS.read_text(), re.MULTILINE)
    code = {file: file.read_text() for file in sorted(ROOT.glob("crates/*/src/**/*.rs")) if file != POINTS}
    tests = {file: file.read_text() for file in sorted(ROOT.glob("crates/*/tests/**/*.rs"))}
    lacking = 0
    for variant, name in points:
        named = re.compile(rf"\b{variant}\b|(?<![\w.-]){re.escape(name)}(?![\w.-])")
        places = [f"{file.stem}.rs" for file, text in code.items() if re.search(rf"reach\(\s*KillPoint::{variant}\b", text)]
        killers = [file.stem for file, text in tests.items() if named.search(text)]
        lacking += not places or not killers
        print(f"{name:32} {', '.join(places) or 'NOWHERE IN THE CODE':30} {', '.join(killers) or 'NO TEST'}")
    print(f"{len(points)} kill-points, {lacking} without a place or a test")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
