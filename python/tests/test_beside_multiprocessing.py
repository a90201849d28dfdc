"""Without `install()`, tenfold and the standard library's multiprocessing live side by side."""


def test_importing_tenfold_leaves_multiprocessing_alone(python):
    python("""
import sys
import multiprocessing, multiprocessing.pool, multiprocessing.synchronize

def main():
    before = {name: module for name, module in sys.modules.items() if "multiprocessing" in name}
    names = {name: dict(vars(module)) for name, module in before.items()}
    finders = list(sys.meta_path)

    import tenfold, tenfold.popen_forkserver
    tenfold.set_start_method("spawn")
    with tenfold.Pool(1) as pool, tenfold.pool.ThreadPool(1) as threads, tenfold.Manager():
        assert pool.map(abs, [-1]) == threads.map(abs, [-1]) == [1]

    assert sys.meta_path == finders
    for name, module in before.items():
        assert sys.modules[name] is module
        for key, value in names[name].items():
            assert getattr(module, key) is value, (name, key)
    # A method that were fixed by now could not be set.
    multiprocessing.set_start_method("fork")
    assert type(multiprocessing.Lock()).__module__ == "multiprocessing.synchronize"
    assert type(multiprocessing.Queue()).__module__ == "multiprocessing.queues"
    assert multiprocessing.get_start_method() == "fork" and tenfold.get_start_method() == "spawn"

if __name__ == "__main__":
    main()
""")


def test_contexts_make_our_objects(python, method):
    python(f"""
import tenfold

if __name__ == "__main__":
    for context in tenfold, tenfold.get_context({method!r}):
        made = [context.Lock(), context.RLock(), context.Semaphore(), context.BoundedSemaphore(),
                context.Condition(), context.Event(), context.Barrier(1), context.Queue(),
                context.JoinableQueue(), context.SimpleQueue(), context.Value("i"),
                context.Array("i", 1), context.Array("c", 1), context.Process()]
        for thing in made:
            assert type(thing).__module__.startswith("tenfold."), thing
        assert type(context.Value("i").get_lock()).__module__ == "tenfold.synchronize"
    with tenfold.get_context({method!r}).Manager() as manager:
        assert type(manager).__module__ == "tenfold.managers"
        with manager.Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
    with tenfold.get_context({method!r}).Pool(1) as pool:
        assert type(pool).__module__ == "tenfold.pool"
""")


def test_everything_works_in_every_start_method(python, method):
    out = python(f"""
import tenfold

def square(x):
    return x * x

def work(lock, queue, value, array, shared):
    import multiprocessing
    assert multiprocessing is not tenfold and tenfold.get_start_method() == {method!r}
    with lock:
        value.value += 1
        array[0] += 2
        shared["key"] = 3
    queue.put("done")

if __name__ == "__main__":
    tenfold.set_start_method({method!r})
    lock, queue = tenfold.Lock(), tenfold.Queue()
    value, array = tenfold.Value("i", 0), tenfold.Array("i", 1)
    with tenfold.Manager() as manager:
        shared = manager.dict()
        arguments = (lock, queue, value, array, shared)
        children = [tenfold.Process(target=work, args=arguments) for _ in range(2)]
        for child in children:
            child.start()
        print(queue.get(), queue.get())
        for child in children:
            child.join()
            assert child.exitcode == 0
        print(value.value, array[:], dict(shared))
    with tenfold.Pool(2) as pool:
        print(pool.map(square, range(4)))
""")
    assert out == "done done\n2 [4] {'key': 3}\n[0, 1, 4, 9]\n"


def test_there_is_one_registry_of_processes(python, method):
    python(f"""
import multiprocessing, time
import tenfold

def child():
    assert multiprocessing.current_process() is tenfold.current_process()
    assert tenfold.current_process().name == "worker"
    assert tenfold.parent_process() is multiprocessing.parent_process()
    assert tenfold.parent_process().name == "MainProcess"
    assert tenfold.current_process().authkey == b"secret"

if __name__ == "__main__":
    tenfold.current_process().authkey = b"secret"
    assert multiprocessing.current_process().authkey == b"secret"
    process = tenfold.get_context({method!r}).Process(target=child, name="worker")
    process.start()
    assert process in multiprocessing.active_children() or not process.is_alive()
    process.join()
    assert process.exitcode == 0
    assert multiprocessing.active_children() == tenfold.active_children() == []
""")


def test_exceptions_are_the_real_ones(python):
    python("""
import multiprocessing, multiprocessing.pool, multiprocessing.managers
import tenfold, tenfold.pool, tenfold.managers
for name in "ProcessError BufferTooShort TimeoutError AuthenticationError".split():
    assert getattr(tenfold, name) is getattr(multiprocessing, name)
assert tenfold.pool.MaybeEncodingError is multiprocessing.pool.MaybeEncodingError
assert tenfold.managers.RemoteError is multiprocessing.managers.RemoteError
""")


def test_children_find_tenfold_where_the_parent_did(python, method):
    """Also if it is the parent's own change of sys.path that makes tenfold importable."""
    out = python(f"""
import os, sys
os.environ.pop("PYTHONPATH", None)
os.chdir("/")
import tenfold

def child(where):
    print(tenfold.__file__ == where)

if __name__ == "__main__":
    process = tenfold.get_context({method!r}).Process(target=child, args=(tenfold.__file__,))
    process.start()
    process.join()
""")
    assert out == "True\n"
