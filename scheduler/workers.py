"""What workers say: Ready, Heartbeat, StepReport; and the handshake with unknown ones.

Owns who is sent a Reset. A worker is known by (replica, incarnation), which is also its routing id.
The other processes of its group, if the model is cut into shards, are known as pids: one that ends
takes the replica with it. Whatever an incarnation says that was replaced is ignored.

A process that has just started says Ready with epoch 0 and replaces whatever was there. A process
that survived its scheduler is unknown: it gets Reset, drops everything, and says Ready to our
epoch; it never replaces a current one.
"""

import logging
import re

from common.messages import (
    PROTOCOL_VERSION,
    FromWorker,
    Heartbeat,
    Ready,
    Reset,
    StepReport,
    StepReports,
)
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.processes import Processes
from scheduler.recovery import Recovery
from scheduler.replicas import Replica, Replicas
from scheduler.reports import Reports

RESET_RETRY_S = 10.0
"""A worker that was told to reset has so long to answer before it is told again."""
MAX_BLOCKS = 1 << 24
MAX_REPLICAS = 1 << 10
_REMEMBERED = 256
_IDENTITY = re.compile(rb"W(\d{1,4})\.([0-9a-f]{16})")

_log = logging.getLogger(__name__)


class Workers:
    """Handles every message of the dispatch socket."""

    def __init__(
        self,
        epoch: int,
        most_blocks: int | None,
        replicas: Replicas,
        recovery: Recovery,
        reports: Reports,
        processes: Processes,
        mail: Mail,
        metrics: Metrics,
    ) -> None:
        """``mail`` goes to workers. ``most_blocks`` bounds what a replica leases."""
        self._epoch = epoch
        self._most_blocks = most_blocks
        self._replicas = replicas
        self._recovery = recovery
        self._reports = reports
        self._processes = processes
        self._mail = mail
        self._metrics = metrics
        self._reset_at: dict[bytes, float] = {}

    def receive(self, identity: bytes, message: FromWorker, now: float) -> bool:
        """One message; True if it may have changed a replica's readiness."""
        match = _IDENTITY.fullmatch(identity)
        place = (int(match[1]), int(match[2], 16)) if match else None
        if place is None or place[0] >= MAX_REPLICAS:
            self._metrics.bad_frames.labels("dispatch").inc()
            return False
        number, incarnation = place
        if isinstance(message, Ready):
            if (message.replica, message.incarnation) != place:
                self._metrics.bad_frames.labels("dispatch").inc()
                return False
            return self._ready(identity, message, now)
        replica = self._replicas.get(number)
        known = replica.worker if replica is not None else None
        if replica is None or known is None:
            self._reset(identity, now)
        elif known.incarnation == incarnation:
            return self._current(replica, identity, message, now)
        return False

    def unreachable(self, identity: bytes, now: float) -> None:
        """A message to a worker had no receiver: its process is gone."""
        self._metrics.unreachable.labels("worker").inc()
        for replica in self._replicas:
            if replica.worker is not None and replica.worker.identity == identity:
                self._lose(replica, "its process cannot be reached", now, died=True)
                return

    def bury(self, now: float) -> bool:
        """Recover what ran in processes that have ended; True if there were any."""
        ended = self._processes.ended()
        for pid in ended:
            for replica in self._replicas:
                if replica.worker is not None and pid in replica.worker.pids:
                    # Others of its group are about to notice; none of them may linger.
                    self._kill(replica, but=pid)
                    self._lose(replica, "its process has ended", now, died=True)
        return bool(ended)

    def replace_hung(self, now: float) -> None:
        """Kill the replicas that hang, and recover what they ran.

        supervisord starts new processes in their place.
        """
        hung = [replica for replica in self._replicas if replica.hangs(now)]
        for replica in hung:
            self._metrics.replicas_hung.inc()
            self._kill(replica)
            cause = f"no sign of life for {replica.silence_s(now):.0f} s"
            self._lose(replica, cause, now, died=True)

    # --- parts --------------------------------------------------------------------------------

    def _current(
        self,
        replica: Replica,
        identity: bytes,
        message: StepReport | StepReports | Heartbeat,
        now: float,
    ) -> bool:
        if message.epoch not in (0, self._epoch):
            self._lose(replica, "it obeys another scheduler", now)
            self._reset(identity, now)
            return True
        if isinstance(message, StepReport):
            self._reports.step(replica, message, now)
        elif isinstance(message, StepReports):
            for report in message.reports:
                self._reports.step(replica, report, now)
        else:
            replica.heard_s = now
        return replica.review(now)

    def _ready(self, identity: bytes, ready: Ready, now: float) -> bool:
        if ready.version != PROTOCOL_VERSION or not 2 <= ready.blocks <= MAX_BLOCKS:
            _log.error(
                "replica %d is refused: protocol version %d (ours is %d), %d KV blocks",
                ready.replica,
                ready.version,
                PROTOCOL_VERSION,
                ready.blocks,
            )
            return False
        if ready.epoch not in (0, self._epoch):
            self._reset(identity, now)
            return False
        replica = self._replicas.get_or_add(ready.replica, now)
        known = replica.worker
        if known is not None and known.incarnation == ready.incarnation:
            # RACE: two Resets were on their way. We cannot tell which one this answers, so what we
            # believe about its blocks may be wrong: begin anew.
            self._lose(replica, "it began anew", now)
            self._reset(identity, now, again=True)
            return True
        if known is not None and ready.epoch:
            return False
        if known is not None:
            self._lose(replica, "a new process has taken its place", now, died=True)
        for pid in (ready.pid, *ready.followers):
            self._processes.hold(pid)
        self._reset_at.pop(identity, None)
        replica.join(ready, most_blocks=self._most_blocks, now=now)
        _log.info(
            "replica %d is ready: %d tokens of KV cache in %d blocks",
            ready.replica,
            replica.total_tokens,
            replica.total_blocks,
        )
        return True

    def _kill(self, replica: Replica, *, but: int | None = None) -> None:
        for pid in replica.worker.pids if replica.worker is not None else ():
            if pid != but:
                self._processes.kill(pid)

    def _lose(self, replica: Replica, cause: str, now: float, *, died: bool = False) -> None:
        for pid in replica.worker.pids if replica.worker is not None else ():
            self._processes.forget(pid)
        self._recovery.lose(replica, cause, now, died=died)

    def _reset(self, identity: bytes, now: float, *, again: bool = False) -> None:
        sent = self._reset_at.get(identity)
        if sent is not None and now - sent < RESET_RETRY_S and not again:
            return
        if len(self._reset_at) >= _REMEMBERED:
            self._reset_at.clear()
        self._reset_at[identity] = now
        self._mail.to_identity(identity, Reset(self._epoch))
