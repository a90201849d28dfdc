"""10. A pool does one task at a time, each in a process of the pool."""

from tenfold import Pool


def f(x):
    return x * x


if __name__ == "__main__":
    pool = Pool(processes=4)
    for i in range(10):
        print(pool.apply(f, (i,)))
    pool.close()
    pool.join()
