"""8. A manager hands out dicts and lists that all processes see."""

from tenfold import Manager, Process


def f(d, l):  # noqa: E741
    d[1] = "1"
    d["2"] = 2
    d[0.25] = None
    l.reverse()


if __name__ == "__main__":
    with Manager() as manager:
        d = manager.dict()
        l = manager.list(range(10))  # noqa: E741
        p = Process(target=f, args=(d, l))
        p.start()
        p.join()
        print(d)
        print(l)
