from multiprocessing import popen_fork as std

__all__ = ["Popen"]

class Popen(std.Popen): ...
