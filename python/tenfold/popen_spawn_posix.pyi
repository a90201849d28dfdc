from multiprocessing import popen_spawn_posix as std

from tenfold import popen_fork

__all__ = ["Popen"]

class Popen(std.Popen, popen_fork.Popen): ...
