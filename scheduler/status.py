"""What front ends are told about the server once a second.

Owns whether new sequences are accepted. Knows no sockets.
"""

from common.messages import PROTOCOL_VERSION, Status
from scheduler.queue import Queue
from scheduler.replicas import Replicas


class Standing:
    """Writes Status messages."""

    def __init__(self, epoch: int, queue: Queue, replicas: Replicas) -> None:
        self.accepting = True
        """False while draining."""
        self._epoch = epoch
        self._queue = queue
        self._replicas = replicas

    def status(self, now: float) -> Status:
        """The state of this moment."""
        return Status(
            version=PROTOCOL_VERSION,
            epoch=self._epoch,
            replicas=[replica.status(now) for replica in self._replicas],
            waiting=len(self._queue),
            running=self._replicas.running,
            accepting=self.accepting,
        )
