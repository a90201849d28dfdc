"""`tenfold.resource_tracker` is the standard library's module itself.

One tracker process for both.
"""

import sys

from ._original import original

sys.modules[__name__] = original("resource_tracker")
