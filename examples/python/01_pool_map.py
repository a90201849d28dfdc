"""1. A pool of processes maps a function over a list."""

from tenfold import Pool


def f(x):
    return x * x


if __name__ == "__main__":
    p = Pool(5)
    print(p.map(f, [1, 2, 3]))
    p.close()
    p.join()
