"""`tenfold.process` is the standard library's module itself.

One registry of children and one current process for both.
"""

import sys

from ._original import original

sys.modules[__name__] = original("process")
