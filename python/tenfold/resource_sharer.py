"""`tenfold.resource_sharer` is the standard library's module itself.

Descriptors travel as in the standard library.
"""

import sys

from ._original import original

sys.modules[__name__] = original("resource_sharer")
