"""How numbers are written: with three digits and a unit that fits."""

from bench.curve import Scale
from bench.row import Unit

__all__ = ["figure", "mark", "size", "times"]

_SCALES: dict[Unit, list[tuple[float, str]]] = {
    Unit.PER_SECOND: [(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
    Unit.BYTES_PER_SECOND: [(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")],
    Unit.SECONDS: [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")],
    Unit.BYTES: [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1.0, "B")],
    Unit.SHARE: [(0.01, "%")],
}
_SIZES = {
    Scale.COUNT: (1000, ("", "k", "M", "G")),
    Scale.BYTES: (1024, ("B", "KiB", "MiB", "GiB")),
}


def _scaled(unit: Unit, value: float) -> tuple[float, str]:
    scales = _SCALES[unit]
    scale, name = next(((scale, name) for scale, name in scales if value >= scale), scales[-1])
    return value / scale, name


def figure(unit: Unit, value: float) -> str:
    """A number with three digits and the fitting prefix."""
    if value == 0:
        return "0"
    value, name = _scaled(unit, value)
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {name}"


def mark(unit: Unit, value: float) -> str:
    """A power of ten at an axis."""
    value, name = _scaled(unit, value)
    return f"{value:.3g} {name}"


def times(ratio: float | None) -> str:
    """A ratio with three digits."""
    if ratio is None:
        return ""
    digits = 0 if ratio >= 100 else 1 if ratio >= 10 else 2 if ratio >= 0.1 else 3
    return f"x{ratio:.{digits}f}"


def size(scale: Scale, value: int) -> str:
    """A size along a curve, which is a round number."""
    step, names = _SIZES[scale]
    power = 0
    while value >= step:
        value, power = value // step, power + 1
    return f"{value} {names[power]}".rstrip()
