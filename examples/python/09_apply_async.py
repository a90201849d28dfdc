"""9. A pool takes a task now and gives its result later."""

from tenfold import Pool


def f(x):
    return x * x


if __name__ == "__main__":
    pool = Pool(processes=4)
    print(pool.apply_async(f, (10,)).get(timeout=10))
    results = [pool.apply_async(f, (i,)) for i in range(10)]
    print([r.get(timeout=10) for r in results])
    pool.close()
    pool.join()
