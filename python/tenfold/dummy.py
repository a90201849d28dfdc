"""`tenfold.dummy` is the standard library's package itself: the same interface with threads."""

import sys

from ._original import original

sys.modules[__name__] = original("dummy")
sys.modules[__name__ + ".connection"] = original("dummy.connection")
