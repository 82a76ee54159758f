"""A sign of life in a file: the scheduler gives it, the launcher's watchdog looks for it.

The file lies in the runtime directory. Only that its time changes means anything, not which time it
is: wall clocks jump. Empty, so that a full disk does not matter.
"""

import os
from pathlib import Path

PULSE_FILE = "scheduler.pulse"


class Pulse:
    """The scheduler's side."""

    def __init__(self, runtime_dir: str) -> None:
        """Raises OSError if the file cannot be made."""
        path = Path(runtime_dir) / PULSE_FILE
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def beat(self) -> None:
        """To be called about once a second by whatever must not hang."""
        os.utime(self._descriptor)

    def close(self) -> None:
        """No more signs."""
        os.close(self._descriptor)


def last_beat(runtime_dir: str) -> int | None:
    """Differs from what it was before the latest beat; None if there was never one."""
    try:
        return (Path(runtime_dir) / PULSE_FILE).stat().st_mtime_ns
    except OSError:
        return None
