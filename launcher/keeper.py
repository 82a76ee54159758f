"""supervisord itself, which replaces during a stop, too, whoever the front ends need to finish.

Runs in supervisord's process. Knows supervisor's insides, as ``launcher/supervise.py`` does.
"""

import time
from collections.abc import Callable
from typing import Any

from supervisor.states import ProcessStates
from supervisor.supervisord import Supervisor

FINISHING = "frontend"
"""The group that is stopped first, and takes its time."""
NEEDED = ("scheduler", "worker")


class Keeper(Supervisor):  # type: ignore[misc] # supervisor has no types
    """supervisord starts nobody any more once it stops: texts would wait for nothing."""

    def __init__(self, options: Any, may_start: Callable[[], bool]) -> None:
        """``may_start``: whether there is anything that could still be finished."""
        super().__init__(options)
        self._may_start = may_start

    def handle_signal(self) -> None:
        """Called by supervisord's loop in every turn, after it has looked who has died."""
        super().handle_signal()
        if self.stopping and self._is_finishing() and self._may_start():
            for name in NEEDED:
                self._keep(self.process_groups[name])

    def _is_finishing(self) -> bool:
        processes = self.process_groups[FINISHING].processes.values()
        return any(process.state == ProcessStates.STOPPING for process in processes)

    def _keep(self, group: Any) -> None:
        for process in group.processes.values():
            died_early = process.state == ProcessStates.BACKOFF and time.time() > process.delay
            if died_early or process.state == ProcessStates.EXITED:
                process.spawn()
