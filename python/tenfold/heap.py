"""`tenfold.heap` is the standard library's module itself.

Memory for what still needs the standard library's.
"""

import sys

from ._original import original

sys.modules[__name__] = original("heap")
