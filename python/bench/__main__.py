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

from bench import curves, picture, report, summary, systems
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
    parser.add_argument(
        "--json", type=Path, help="the numbers; default: target/bench-python.json or -curves"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the rows, the curves and the systems, and measure nothing",
    )
    parser.add_argument(
        "--curves",
        action="store_true",
        help="how the cost grows with the work, of tenfold and the standard library; "
        "--rows chooses among them",
    )
    parser.add_argument(
        "--demo", action="store_true", help="a short table of a few rows, measured once"
    )
    return parser.parse_args()


def wanted(parts: str, name: str) -> bool:
    return not parts.split() or any(part in name for part in parts.split())


def list_everything() -> None:
    for row in ALL:
        print(f"{row.name:<24} {row.title}")
    print("\ncurves:")
    for curve in curves.ALL:
        print(f"{curve.name:<24} {curve.title}, against {curve.along}")
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
    path = options.json or Path("target/bench-python.json")
    report.write_rows(path, results, options.repeat)
    picture.draw(path)


def bench_curves(options: argparse.Namespace) -> None:
    report.print_curves_head(options.repeat)
    results = []
    for curve in curves.ALL:
        if wanted(options.rows, curve.name):
            both = [systems.TENFOLD, systems.STANDARD]
            results.append(summary.measure_curve(curve, both, options.repeat, options.limit))
            report.print_curve(results[-1])
    path = options.json or Path("target/bench-curves.json")
    report.write_curves(path, results, options.repeat)
    picture.draw(path)


def main() -> None:
    options = parse_options()
    if options.list:
        list_everything()
    elif options.demo:
        demo(options.limit)
    elif options.curves:
        bench_curves(options)
    else:
        bench(options)


if __name__ == "__main__":
    main()
