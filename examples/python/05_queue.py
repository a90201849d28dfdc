"""5. A queue carries anything that can be pickled from process to process."""

from tenfold import Process, Queue


def f(q, n):
    q.put([42, n, "hello"])


if __name__ == "__main__":
    q = Queue()
    p = Process(target=f, args=(q, None))
    p.start()
    print(q.get())
    p.join()
