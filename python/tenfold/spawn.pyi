from multiprocessing.spawn import *
from multiprocessing.spawn import __all__ as __all__
from multiprocessing.spawn import prepare as prepare
from multiprocessing.spawn import spawn_main as spawn_main

def child_program(text: str) -> str: ...
