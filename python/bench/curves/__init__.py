"""All curves, in the order of the picture."""

from bench.curves import crowds, depths, parents, sizes

__all__ = ["ALL"]

ALL = (*sizes.CURVES, *crowds.CURVES, *depths.CURVES, *parents.CURVES)
