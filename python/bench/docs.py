"""The last run's tables and pictures, put into docs/benchmarks.md: the end of `make bench-docs`.

usage: python -m bench.docs rust|python|curves ...
"""

import shutil
import sys
from pathlib import Path

__all__ = ["publish"]

TARGET, DOCS = Path("target"), Path("docs")
PAGE = DOCS / "benchmarks.md"
# A run that has come to its end says so last.
LAST = "written to "


def table(name: str) -> str:
    """What a bench has printed, without its last line."""
    printed = (TARGET / f"bench-{name}.txt").read_text()
    text, end, _ = printed.partition(LAST)
    if not end:
        raise SystemExit(f"the run of {name} did not come to its end; its table is not published")
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def publish(names: list[str]) -> None:
    page = PAGE.read_text()
    for name in names:
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        # The curves are a picture alone.
        if found:
            _, _, after = rest.partition(end)
            page = f"{before}{begin}```text\n{table(name)}\n```\n{end}{after}"
    for name in names:
        shutil.copy(TARGET / f"bench-{name}.svg", DOCS / f"benchmarks-{name}.svg")
    PAGE.write_text(page)
    print(f"{' '.join(names)}: now in {PAGE} and beside it; read whether its text is still true")


if __name__ == "__main__":
    publish(sys.argv[1:])
