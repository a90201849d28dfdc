"""The command line. Run it as `python python/bench`, by a Python that has tenfold and numpy.

In each repetition the systems of a row are measured one after the other, each in a fresh process,
so that a slow spell of the machine hits all of them.
"""

import argparse
import os
import sys
from pathlib import Path

# Run as a folder, the folder itself is first in sys.path. The package is found through the folder
# above, which comes last: an installed tenfold is measured, and not the sources beside this.
if __name__ == "__main__" and not __package__:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.remove(here)
    sys.path.append(os.path.dirname(here))

from bench import cell, picture, report, summary, systems
from bench.rows import ALL, DEMO


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="tenfold beside the standard library and others"
    )
    parser.add_argument("--rows", default="", help="parts of the names of rows; all if empty")
    parser.add_argument("--peers", default="", help="parts of the names of peers; all if empty")
    parser.add_argument(
        "--repeat", type=int, default=5, help="measurements of each system in each row"
    )
    parser.add_argument(
        "--limit", type=float, default=120.0, help="seconds that one measurement may take"
    )
    parser.add_argument("--json", type=Path, default=Path("target/bench-python.json"))
    parser.add_argument("--svg", type=Path, default=Path("target/bench-python.svg"))
    parser.add_argument(
        "--list", action="store_true", help="list the rows and the systems, and measure nothing"
    )
    parser.add_argument(
        "--demo", action="store_true", help="a short table of a few rows, measured once"
    )
    parser.add_argument("--measure", nargs=2, metavar=("ROW", "SYSTEM"), help=argparse.SUPPRESS)
    return parser.parse_args()


def wanted(parts: str, name: str) -> bool:
    return not parts.split() or any(part in name for part in parts.split())


def list_everything() -> None:
    for row in ALL:
        print(f"{row.name:<24} {row.title}")
    print("\nsystems: " + ", ".join(system.name for system in systems.ALL))


def demo(limit: float) -> None:
    report.print_demo_head()
    for row in ALL:
        if row.name in DEMO:
            report.print_demo_row(
                summary.measure(row, [systems.TENFOLD, systems.STANDARD], 1, limit)
            )


def bench(options: argparse.Namespace) -> None:
    chosen = [
        system
        for system in systems.ALL
        if system in (systems.TENFOLD, systems.STANDARD) or wanted(options.peers, system.name)
    ]
    report.print_head(options.repeat)
    results = []
    for row in ALL:
        if wanted(options.rows, row.name):
            results.append(summary.measure(row, chosen, options.repeat, options.limit))
            report.print_row(results[-1])
    report.write_json(options.json, results, options.repeat)
    picture.write_svg(options.svg, results)
    print(f"\nwritten to {options.json} and {options.svg}")


def main() -> None:
    options = parse_options()
    if options.measure:
        cell.measure_here(*options.measure)
    elif options.list:
        list_everything()
    elif options.demo:
        demo(options.limit)
    else:
        bench(options)


if __name__ == "__main__":
    main()
