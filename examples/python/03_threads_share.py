"""3. Threads share a list: each sees what the others have added."""

from threading import Thread


def run(info_list, n):
    info_list.append(n)
    print(info_list)


if __name__ == "__main__":
    info = []
    for i in range(10):
        t = Thread(target=run, args=[info, i])
        t.start()
        t.join()
    print(info)
