"""`tenfold.reduction` is the standard library's module itself: one table of reducers for both."""

import sys

from ._original import original

sys.modules[__name__] = original("reduction")
