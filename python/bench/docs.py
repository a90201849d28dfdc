"""The last run's tables and pictures, put into docs/benchmarks.md: the end of `make bench-docs`."""

import shutil
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


def publish() -> None:
    page = PAGE.read_text()
    for name in ("rust", "python"):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}```text\n{table(name)}\n```\n{end}{after}"
    for name in ("rust", "python", "curves"):
        shutil.copy(TARGET / f"bench-{name}.svg", DOCS / f"benchmarks-{name}.svg")
    PAGE.write_text(page)
    print(f"the tables are in {PAGE}, the pictures beside it; read whether its text is still true")


if __name__ == "__main__":
    publish()
