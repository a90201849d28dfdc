from multiprocessing import popen_forkserver as std

from tenfold import popen_fork

__all__ = ["Popen"]

class Popen(std.Popen, popen_fork.Popen): ...
