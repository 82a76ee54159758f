"""How the server stands, as far as this process has heard: the scheduler's heartbeat.

Answers health checks; never runs the model, never waits.
"""

import logging
import math

from common.messages import PROTOCOL_VERSION, ReplicaStatus, Status

SILENT_S = 5.0
"""The scheduler counts as gone when nothing was heard of it for so long."""
OVERSLEPT_S = 2.5
"""If our own heartbeat, once a second, is so late, we were halted."""
STUCK_S = 60.0
"""A ready replica that runs sequences but made no progress for so long makes us unhealthy."""

_log = logging.getLogger(__name__)


class Standing:
    """The latest Status, and when it came."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._heard_at = -math.inf
        self._beat_at = math.inf
        self.stopping = False
        """Whether this very process has been told to end."""

    def heed(self, status: Status, now: float) -> bool:
        """Note a heartbeat; whether it is another scheduler's than the one before."""
        before, self._status = self._status, status
        self._heard_at = now
        if status.version != PROTOCOL_VERSION and before is None:
            _log.error("the scheduler speaks protocol version %d, not ours", status.version)
        return before is not None and before.epoch != status.epoch

    def beat(self, now: float) -> float:
        """To be called once a second, if we are not halted; the scheduler's silence."""
        silence_s = self.silence_s(now)
        self._beat_at = now
        return silence_s

    def silence_s(self, now: float) -> float:
        """Seconds since the scheduler was heard.

        RACE: while we were halted, nobody was silent. What the scheduler has said meanwhile is
        still to be read, or it was halted, too.
        """
        if now - self._beat_at > OVERSLEPT_S and self._status is not None:
            self._heard_at = now
        return now - self._heard_at

    def replica(self) -> ReplicaStatus | None:
        """One that is ready, if there is any."""
        replicas = self._status.replicas if self._status is not None else []
        return next((replica for replica in replicas if replica.ready), None)

    def live_sequences(self, now: float) -> int | None:
        """How many wait or run by the latest Status; None if that is too old."""
        status = self._status
        if status is None or self.silence_s(now) > SILENT_S:
            return None
        return status.waiting + status.running

    def latest(self, now: float) -> Status | None:
        """The latest Status; None if it is too old to tell anything."""
        return None if self.silence_s(now) > SILENT_S else self._status

    def unhealthy(self, now: float) -> str:
        """Why no request can be served at the moment; empty if they can."""
        if self.stopping:
            return "the server is shutting down"
        status = self._status
        if status is None or self.silence_s(now) > SILENT_S:
            return "the scheduler is not answering"
        if status.version != PROTOCOL_VERSION:
            return "the scheduler speaks another protocol version"
        if not status.accepting:
            return "the server is draining"
        ready = [replica for replica in status.replicas if replica.ready]
        if not ready:
            return "no replica is ready"
        if all(replica.running and replica.progress_age_s > STUCK_S for replica in ready):
            return "no replica makes progress"
        return ""
