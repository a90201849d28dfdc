"""The systems: their names, whether they are installed, and which rows each can take part in."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.row import Row

__all__ = ["ALL", "STANDARD", "TENFOLD", "System", "by_name"]


class Context:
    """An opened system with the interface of multiprocessing: everything of one of its contexts."""

    def __init__(self, package: str, method: str | None) -> None:
        # Fork, unless the row is about another method: their start is not what is measured then.
        self._context = importlib.import_module(package).get_context(method or "fork")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def large_queue(self, largest: int) -> Any:
        return self._context.Queue()

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class System:
    """A package that is measured."""

    name: str
    package: str
    # What it offers; None: whatever multiprocessing does.
    offers: frozenset[str] | None = None
    methods: tuple[str, ...] = ("fork", "forkserver", "spawn")
    # The class in `peers` that opens it; none for those with the interface of multiprocessing.
    adapter: str | None = None

    def why_not(self, row: Row) -> str | None:
        """Why it does not take part in a row, or None if it does."""
        if importlib.util.find_spec(self.package) is None:
            return "not installed"
        if self.offers is not None and row.needs not in self.offers:
            return f"no {row.needs}"
        if row.method is not None and row.method not in self.methods:
            return f"no {row.method}"
        return None

    def open(self, row: Row) -> Any:
        """What the row's function is called with."""
        if self.adapter is None:
            return Context(self.package, row.method)
        peers = importlib.import_module("bench.peers")
        adapter: Callable[[str | None], Any] = getattr(peers, self.adapter)
        return adapter(row.method)


def _pool(*methods: str) -> frozenset[str]:
    return frozenset({"Pool", *(f"Pool.{method}" for method in methods)})


_EXECUTOR = _pool("map", "chunks", "imap", "apply", "apply_async")

TENFOLD = System("tenfold", "tenfold")
STANDARD = System("multiprocessing", "multiprocessing")
# In the order of the table.
ALL = (
    TENFOLD,
    STANDARD,
    System("concurrent.futures", "concurrent.futures", _EXECUTOR, adapter="Futures"),
    System(
        "joblib", "joblib", _pool("map", "chunks", "imap_unordered"), ("spawn",), adapter="Joblib"
    ),
    System("loky", "loky", _EXECUTOR, ("spawn",), adapter="Loky"),
    System("billiard", "billiard"),
    System("multiprocess", "multiprocess"),
    System(
        "mpire",
        "mpire",
        _pool("map", "starmap", "chunks", "imap", "imap_unordered", "apply", "apply_async"),
        adapter="Mpire",
    ),
    System(
        "pebble", "pebble", _pool("map", "chunks", "imap", "apply", "apply_async"), adapter="Pebble"
    ),
    System("faster-fifo", "faster_fifo", frozenset({"Queue"}), ("fork",), adapter="FasterFifo"),
    System("UltraDict", "UltraDict", frozenset({"Manager.dict"}), ("fork",), adapter="SharedDict"),
    System(
        "ray",
        "ray",
        _pool("map", "starmap", "chunks", "imap", "imap_unordered", "apply", "apply_async"),
        ("spawn",),
        adapter="Ray",
    ),
)


def by_name(name: str) -> System:
    """The system of that name."""
    return next(system for system in ALL if system.name == name)
