"""`install()` makes multiprocessing mean tenfold: the very same objects, for all children too."""

import pytest

SUBMODULES = [
    "connection",
    "context",
    "dummy",
    "dummy.connection",
    "forkserver",
    "heap",
    "managers",
    "pool",
    "popen_fork",
    "popen_forkserver",
    "popen_spawn_posix",
    "process",
    "queues",
    "reduction",
    "resource_sharer",
    "resource_tracker",
    "shared_memory",
    "sharedctypes",
    "spawn",
    "synchronize",
    "util",
]
SHARED = ["connection", "dummy", "heap", "process", "reduction", "resource_sharer"]
SHARED += ["resource_tracker", "shared_memory", "util"]

# Imports that may come before install().
EARLY = {
    "nothing": "",
    "the package": "import multiprocessing",
    "some submodules": "import multiprocessing.pool, multiprocessing.dummy",
    "all submodules": "\n".join(f"import multiprocessing.{name}" for name in SUBMODULES),
    "tenfold's submodules": "import tenfold.pool, tenfold.managers, tenfold.util",
}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY.keys())
def test_the_same_objects_under_both_names(python, early):
    python(f"""
{early}
import importlib, sys
import tenfold
tenfold.install()
import multiprocessing
assert multiprocessing is tenfold
for name in {SUBMODULES}:
    alias = importlib.import_module("multiprocessing." + name)
    assert alias is importlib.import_module("tenfold." + name), name
    assert alias is sys.modules["multiprocessing." + name], name
    head, _, last = name.rpartition(".")
    parent = sys.modules["multiprocessing." + head] if head else multiprocessing
    assert getattr(parent, last) is alias, name
""")


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY.keys())
def test_our_classes_are_subclasses_of_the_real_ones(python, early):
    python(f"""
{early}
import importlib
import tenfold
tenfold.install()
for module, names in {{
    "context": "BaseContext Process ForkProcess SpawnProcess ForkServerProcess DefaultContext",
    "managers": "BaseManager SyncManager SharedMemoryManager",
    "pool": "Pool ThreadPool",
    "popen_fork": "Popen",
    "popen_forkserver": "Popen",
    "popen_spawn_posix": "Popen",
    "queues": "Queue JoinableQueue SimpleQueue",
    "sharedctypes": "SynchronizedBase Synchronized SynchronizedArray SynchronizedString",
    "synchronize": "Lock RLock Semaphore BoundedSemaphore Condition Event Barrier SemLock",
}}.items():
    ours = importlib.import_module("multiprocessing." + module)
    for name in names.split():
        class_ = getattr(ours, name)
        assert class_.__module__ == "tenfold." + module, class_
        originals = [c for c in class_.__mro__[1:] if c.__module__ == "multiprocessing." + module]
        assert originals[0].__name__ == name, class_.__mro__
""")


def test_installing_twice_does_nothing(python):
    python("""
import sys
import tenfold
tenfold.install()
import multiprocessing.pool, multiprocessing.queues
before = dict(sys.modules), list(sys.meta_path)
tenfold.install()
assert before == (dict(sys.modules), list(sys.meta_path))
""")


def test_shared_modules_are_the_real_ones(python):
    python(f"""
import importlib
real = {{name: importlib.import_module("multiprocessing." + name) for name in {SHARED}}}
import tenfold
for when in ("before", "after"):
    for name in {SHARED}:
        assert importlib.import_module("tenfold." + name) is real[name], (when, name)
    tenfold.install()
""")


def test_all_original_names_are_there(python):
    python(f"""
import importlib
names = {{}}
for name in {SUBMODULES}:
    names[name] = set(dir(importlib.import_module("multiprocessing." + name)))
import multiprocessing
public = set(multiprocessing.__all__)
import tenfold
assert set(tenfold.__all__) >= public
for name in {SUBMODULES}:
    missing = names[name] - set(dir(importlib.import_module("tenfold." + name)))
    assert not missing - {{"__cached__", "__builtins__"}}, (name, missing)
""")


def test_originals_loaded_late_are_like_those_loaded_early(python):
    source = """
import sys
import tenfold
{early}
tenfold.install()
from tenfold._original import original
from multiprocessing import managers, pool
std = original("pool")
assert std is pool.std and std is original("managers").pool is managers.std.pool
assert (std.__name__, std.__package__) == ("multiprocessing.pool", "multiprocessing")
assert std.__spec__.name == "multiprocessing.pool" and std.__spec__.parent == "multiprocessing"
assert std.Pool.__module__ == std.RemoteTraceback.__module__ == "multiprocessing.pool"
assert pool.RemoteTraceback is std.RemoteTraceback
with multiprocessing.dummy.Pool(1) if {early!r} else pool.ThreadPool(1) as threads:
    assert isinstance(threads, pool.Pool)
"""
    python(source.format(early=""))
    python(source.format(early="import multiprocessing.managers, multiprocessing.dummy"))


def test_a_thread_pool_of_dummy_is_ours(python):
    python("""
import tenfold
tenfold.install()
import multiprocessing.dummy, multiprocessing.pool
with multiprocessing.dummy.Pool(1) as pool:
    assert type(pool) is multiprocessing.pool.ThreadPool
    assert pool.map(abs, [-1]) == [1]
""")


def test_children_are_installed_too(python, method):
    out = python(f"""
import tenfold
tenfold.install()

def report(level):
    import multiprocessing, multiprocessing.queues
    assert multiprocessing is tenfold
    assert multiprocessing.queues.Queue.__module__ == "tenfold.queues"
    assert multiprocessing.get_start_method() == {method!r}
    print("level", level, flush=True)
    if level < 2:
        child = multiprocessing.Process(target=report, args=(level + 1,))
        child.start()
        child.join()
        assert child.exitcode == 0

if __name__ == "__main__":
    import multiprocessing
    multiprocessing.set_start_method({method!r})
    report(0)
""")
    assert out == "level 0\nlevel 1\nlevel 2\n"


def test_children_are_installed_before_they_unpickle(python, tmp_path, method):
    (tmp_path / "library.py").write_text("""
from multiprocessing import queues

class Task:
    def __call__(self):
        assert queues.Queue.__module__ == "tenfold.queues"
        print("ran")
""")
    out = python(f"""
import tenfold
tenfold.install()
if __name__ == "__main__":
    import library
    context = tenfold.get_context({method!r})
    child = context.Process(target=library.Task())
    child.start()
    child.join()
""")
    assert out == "ran\n"


def test_modules_that_there_are_not(python):
    out = python("""
import tenfold
tenfold.install()
for name in "nowhere", "popen_spawn_win32":
    try:
        __import__("multiprocessing." + name)
    except ModuleNotFoundError as error:
        print(error)
""")
    assert out == "No module named 'multiprocessing.nowhere'\nNo module named 'msvcrt'\n"


def test_importing_tenfold_costs_little_more_than_multiprocessing(python):
    """Some modules of the standard library take longer than all of tenfold's Python."""
    python("""
import sys
import multiprocessing.spawn
before = set(sys.modules)
import tenfold.spawn
tenfold.install()
import multiprocessing.spawn
new = {name for name in set(sys.modules) - before if "multiprocessing" not in name}
assert {name for name in new if not name.startswith("tenfold")} == set(), new
""")


def test_submodules_are_attributes_without_an_import(python):
    """In the standard library most of them are, as its modules import each other."""
    python("""
import tenfold
tenfold.install()
import multiprocessing
for name in "util pool connection queues synchronize managers shared_memory dummy".split():
    assert getattr(multiprocessing, name) is __import__("multiprocessing." + name, fromlist=["x"])
assert not hasattr(multiprocessing, "nowhere")
""")
