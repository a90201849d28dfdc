"""Windows only, and there the standard library's: importing it elsewhere is an ImportError."""

from ._original import mirror

std = mirror(globals(), "popen_spawn_win32")
