"""What is used wrongly raises what the standard library raises, in every start method."""

import multiprocessing
import time

import pytest

import tenfold

pytestmark = pytest.mark.fault(21)


def raised(function, *args):
    """The exception's type and text, without what differs between two objects."""
    try:
        got = function(*args)
    except Exception as error:
        return type(error), str(error).split(" <")[0]
    pytest.fail(f"returned {got!r}")


def process(ctx):
    one = ctx.Process(target=time.sleep, args=(600,))
    yield raised(one.join)
    one.start()
    yield raised(one.start)
    yield raised(one.close)
    one.kill()
    one.join()
    yield raised(one.start)
    one.close()
    for method in (one.start, one.join, one.is_alive, one.kill, one.terminate):
        yield raised(method)
    yield raised(lambda: one.exitcode)
    yield raised(lambda: one.sentinel)


def locks(ctx):
    for lock in (ctx.Lock(), ctx.RLock(), ctx.BoundedSemaphore(1), ctx.Condition()):
        yield raised(lock.release)
    for data in (ctx.Value("i"), ctx.Array("i", 1)):
        yield raised(data.release)
    yield raised(ctx.Condition().wait)
    yield raised(ctx.Condition().notify)
    yield raised(ctx.Condition().notify_all)
    lock = ctx.Lock()
    with lock:
        pass
    yield raised(lock.release)
    # The texts of these two say more than the standard library's.
    yield raised(ctx.Semaphore, -1)[0]
    yield raised(ctx.Barrier(2, timeout=0.01).wait)[0]


def queues(ctx):
    q = ctx.Queue()
    q.close()
    for call in (lambda: q.put(1), lambda: q.put_nowait(1), q.get, q.get_nowait):
        yield raised(call)
    q = ctx.SimpleQueue()
    q.close()
    for call in (lambda: q.put(1), q.get, q.empty):
        yield raised(call)
    yield raised(ctx.JoinableQueue().task_done)


def pipes(ctx):
    here, there = ctx.Pipe()
    there.close()
    yield raised(here.send, 1)
    yield raised(here.send_bytes, b"1")
    yield raised(here.recv)
    yield raised(here.recv_bytes)
    here.close()
    for call in (lambda: here.send(1), here.recv, here.poll, here.fileno):
        yield raised(call)
    reader, writer = ctx.Pipe(duplex=False)
    yield raised(reader.send, 1)
    yield raised(writer.recv)
    reader.close()
    yield raised(writer.send, 1)


def send_to_the_dead(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=hold_end, args=(there,))
    child.start()
    there.close()
    here.recv()
    child.kill()
    child.join()
    yield raised(here.send, 1)
    # A message that the dead one had not read makes this ECONNRESET in the standard library.
    yield raised(here.recv)


def hold_end(end):
    end.send("ready")
    end.recv()


def pools(ctx):
    yield raised(ctx.Pool, 0)
    pool = ctx.Pool(1)
    yield raised(pool.join)
    pool.close()
    yield raised(pool.apply, int)
    yield raised(pool.map, int, [1])
    pool.terminate()
    for call in (pool.apply_async, pool.apply):
        yield raised(call, int)
    for call in (pool.imap, pool.imap_unordered, pool.map_async, pool.starmap):
        yield raised(call, int, [1])
    yield raised(pool.__enter__)
    pool.join()


@pytest.mark.parametrize("misuse", [process, locks, queues, pipes, send_to_the_dead, pools])
def test_the_exceptions_are_the_standard_librarys(misuse, ctx):
    wanted = list(misuse(multiprocessing.get_context("fork")))
    assert list(misuse(ctx)) == wanted


def test_the_dead_reader_of_a_queue_is_no_error(ctx):
    # A queue has no single reader: others may come.
    q = ctx.Queue()
    child = ctx.Process(target=q.get)
    child.start()
    child.kill()
    child.join()
    q.put(1)
    assert q.get(timeout=60) == 1


def test_a_result_of_a_pool_that_is_gone_is_an_error(ctx):
    # The standard library waits for ever here.
    with ctx.Pool(1) as pool:
        result = pool.apply_async(time.sleep, (600,))
    with pytest.raises(tenfold.PoolTerminated):
        result.get()


@pytest.mark.parametrize("daemon", [0, 1, "", "yes", [1]])
def test_anything_may_say_whether_a_process_is_a_daemon(ctx, daemon):
    queue = ctx.Queue()
    child = ctx.Process(target=queue.put, args=(1,), daemon=daemon)
    child.start()
    assert queue.get(timeout=60) == 1
    child.join(60)
    assert child.exitcode == 0
