"""`tenfold.util` is the standard library's module itself.

One registry of finalizers and one logger for both.
"""

import sys

from ._original import original

sys.modules[__name__] = original("util")
