"""6. A lock lets one process print at a time."""

from tenfold import Lock, Process


def f(lock, i):
    lock.acquire()
    print("hello world", i, flush=True)
    lock.release()


if __name__ == "__main__":
    lock = Lock()
    processes = [Process(target=f, args=(lock, num)) for num in range(10)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
