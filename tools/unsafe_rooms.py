#!/usr/bin/env python3
"""Check that unsafe code stays in the rooms that may have it, and that every other crate forbids it."""

import pathlib
import re
import sys

CRATES = pathlib.Path(__file__).resolve().parent.parent / "crates"
# Crates that exist to hold it, and single modules where a foreign interface forces it.
ROOMS = (
    "tenfold-sys/",
    "tenfold-shm/",
    "tenfold-engine/src/start_hook.rs",
    "tenfold-bench/src/plain_fork.rs",
    "tenfold-python/src/buffers.rs",
    "tenfold-python/src/calls.rs",
    "tenfold-python/src/numbers.rs",
    "tenfold-python/src/quick.rs",
    "tenfold/tests/support/raw_fork.rs",
)
CODE = re.compile(r"\bunsafe\s*(?:\{|fn\b|impl\b|extern\b|trait\b|\()|\ballow\(unsafe_code\)")


def main() -> int:
    outside = []
    for file in sorted(CRATES.rglob("*.rs")):
        place = file.relative_to(CRATES).as_posix()
        if place.startswith(ROOMS) or "/target/" in place:
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if CODE.search(line.split("//")[0]):
                outside.append(f"crates/{place}:{number}: {line.strip()}")
    for line in outside:
        print(f"unsafe code outside its rooms: {line}")
    if not outside:
        print("unsafe code: only in", ", ".join(ROOMS))
    return int(bool(outside))


if __name__ == "__main__":
    sys.exit(main())
