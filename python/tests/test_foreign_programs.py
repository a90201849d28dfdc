"""Programs that reach into multiprocessing's inner parts work under `install()`."""

import pytest

EXECUTOR = """
import os
import sys
import tenfold
{imports}
import multiprocessing

def start(text):
    global started
    started = text

def square(x):
    assert multiprocessing.__name__ == "tenfold"
    return x * x, started

def refuse(x):
    raise ValueError(x)

def end(x):
    os._exit(3)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, context, initializer=start, initargs=("up",)) as executor:
        print(list(executor.map(square, range(3))))
        try:
            executor.submit(refuse, 5).result()
        except ValueError as error:
            print("ValueError", error)
        try:
            executor.submit(abs, lambda: 0).result()
        except Exception as error:
            print("not pickled")
        print(sorted(future.result() for future in as_completed(
            [executor.submit(pow, 2, x) for x in range(3)])))
        try:
            executor.submit(end, 1).result()
        except BrokenProcessPool:
            print("broken")
"""


INSTALL = "tenfold.install()"
IMPORT = """
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
"""


@pytest.mark.parametrize("order", [INSTALL + IMPORT, IMPORT + INSTALL], ids=["before", "after"])
def test_process_pool_executor(python, tmp_path, method, order):
    """With install() before or after the import of concurrent.futures."""
    (tmp_path / "script.py").write_text(EXECUTOR.format(imports=order))
    out = python("script.py", method)
    assert out.splitlines() == [
        "[(0, 'up'), (1, 'up'), (4, 'up')]",
        "ValueError 5",
        "not pickled",
        "[1, 2, 4]",
        "broken",
    ]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(python, tmp_path, backend):
    pytest.importorskip("joblib")
    (tmp_path / "script.py").write_text("""
import sys
from joblib import Parallel, delayed

def square(x):
    return x * x

if __name__ == "__main__":
    print(Parallel(n_jobs=2, backend=sys.argv[1])(delayed(square)(x) for x in range(4)))
""")
    assert python("-m", "tenfold", "script.py", backend) == "[0, 1, 4, 9]\n"


def test_a_context_in_the_table_of_contexts(python):
    """As joblib and loky register theirs."""
    python("""
import tenfold
tenfold.install()
from multiprocessing import context
class OwnContext(context.ForkContext):
    _name = "own"
own = context._concrete_contexts["own"] = OwnContext()
import multiprocessing
assert multiprocessing.get_context("own") is own
multiprocessing.set_start_method("own")
assert multiprocessing.get_start_method() == "own"
with multiprocessing.Pool(1) as pool:
    assert pool.map(abs, [-1]) == [1]
""")
