from collections.abc import Sequence
from multiprocessing import forkserver as std
from multiprocessing.forkserver import *
from multiprocessing.forkserver import __all__ as __all__
from multiprocessing.forkserver import main as main

class ForkServer(std.ForkServer):
    def new_child(self, fds: Sequence[int]) -> tuple[int, int, int]: ...
