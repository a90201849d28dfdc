"""Starts a child that is a copy of this process, and looks after any child."""

from ._original import mirror

std = mirror(globals(), "popen_fork")


class Popen(std.Popen):
    """A started child, and how it is started: what all start methods have in common."""

    def _launch(self, process_obj):
        self._before_start(process_obj)
        self._start(process_obj)
        self._after_start(process_obj)

    def _before_start(self, process_obj):
        """Runs in the parent while there is no child yet."""

    # Makes the child. The child goes on in `process_obj._bootstrap` and never returns from here.
    _start = std.Popen._launch

    def _after_start(self, process_obj):
        """Runs in the parent once the child is there, as `self.pid`."""
