"""The program of one measurement: `program.py ROW SYSTEM`.

It is a file, as users' programs are: children by spawn, and each of the standard library's by its
fork server, import it again.
"""

import os
import sys

if __name__ == "__main__":
    # As in `__main__`: the package is found last, after an installed tenfold.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.remove(here)
    sys.path.append(os.path.dirname(here))

    from bench import cell

    cell.measure_here(*sys.argv[1:])
