"""`tenfold.connection` is the standard library's module itself.

Pipes and sockets are the standard library's.
"""

import sys

from ._original import original

sys.modules[__name__] = original("connection")
