"""All rows, in the order of the table."""

from bench.rows import arrays, idle, locks, managers, pools, queues, shared_data, starts

__all__ = ["ALL", "DEMO"]

ALL = (
    *queues.ROWS,
    *pools.ROWS,
    *arrays.ROWS,
    *managers.ROWS,
    *starts.ROWS,
    *locks.ROWS,
    *shared_data.ROWS,
    *idle.ROWS,
)

# The rows of the short table.
DEMO = frozenset(
    {
        "queue-ints",
        "queue-round-trip",
        "queue-array",
        "pool-map",
        "pool-chunksize-1",
        "pool-arrays-in",
        "dict-set",
        "start-pool-fork",
        "value-add",
    }
)
