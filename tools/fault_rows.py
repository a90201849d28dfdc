#!/usr/bin/env python3
"""Print the faults of docs/faults.md with the tests that cause them, in Rust and in Python, and count them.

A test says which faults it causes: in Rust by a comment above it, `// Fault 7.` or `// Faults 7, 8.`, in Python by a
mark, `@pytest.mark.fault(7)`, on the test or its class, or as the module's `pytestmark`. The exit status is 1 if a
fault has no test in a language and does not say why below."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAULTS = range(1, 26)
# Fault → why there is no test of it in Rust.
NOT_IN_RUST = {25: "the Rust crate listens nowhere"}


def rust_tests():
    """(fault, test) of all that are marked."""
    for file in sorted(ROOT.glob("crates/*/tests/*.rs")):
        text = file.read_text()
        for mark in re.finditer(r"// Faults? ([\d, ]+)\.", text):
            name = re.search(r"fn \$?(\w+)|(\w+): \w+", text[mark.end() :])
            for fault in re.findall(r"\d+", mark[1]):
                yield int(fault), f"{file.stem}::{name[1] or name[2]}"


def python_tests():
    """(fault, test) of all that are marked."""
    for file in sorted(ROOT.glob("python/tests/chaos/test_*.py")):
        text = file.read_text()
        for mark in re.finditer(r"(pytestmark = pytest\.)?mark\.fault\(([\d, ]+)\)", text):
            name = re.search(r"(?:def|class) (\w+)", text[mark.end() :])
            for fault in re.findall(r"\d+", mark[2]):
                yield int(fault), file.stem if mark[1] else f"{file.stem}::{name[1]}"


def main() -> int:
    rust, python = list(rust_tests()), list(python_tests())
    lacking = 0
    for fault in FAULTS:
        in_rust = [name for number, name in rust if number == fault]
        in_python = [name for number, name in python if number == fault]
        lacking += (not in_rust and fault not in NOT_IN_RUST) + (not in_python)
        print(f"{fault:2} Rust:   {', '.join(in_rust) or NOT_IN_RUST.get(fault, 'NO TEST')}")
        print(f"   Python: {', '.join(in_python) or 'NO TEST'}")
    print(f"{len(FAULTS)} faults, {lacking} without a test in a language")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
