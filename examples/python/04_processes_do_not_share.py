"""4. Processes do not share a list: each has its own. (What they share, examples 5 to 8 show.)"""

from tenfold import Process


def run(info_list, n):
    info_list.append(n)
    print(f"{info_list}\n", end="", flush=True)


if __name__ == "__main__":
    info = []
    processes = [Process(target=run, args=[info, i]) for i in range(10)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    print("parent", info)
