"""What is done once a second, and whatever becomes due: heartbeats, silences, replays, checks.

Owns the rhythm. Knows no sockets.
"""

import logging
import math
from collections.abc import Callable

from common.sockets import HEARTBEAT_S
from scheduler.endings import Endings
from scheduler.frontends import Frontends
from scheduler.intake import Intake
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.queue import Queue
from scheduler.recovery import Recovery
from scheduler.replicas import Replica, Replicas
from scheduler.requests import Requests
from scheduler.retirement import Retirements
from scheduler.status import Standing
from scheduler.streams import Streams
from scheduler.throughput import Throughput
from scheduler.workers import Workers

OVERSLEPT_S = 3.0
"""If the rhythm has paused for so long, we were halted ourselves, and others perhaps with us."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """Everything that time alone brings about."""

    def __init__(
        self,
        requests: Requests,
        queue: Queue,
        replicas: Replicas,
        frontends: Frontends,
        intake: Intake,
        endings: Endings,
        recovery: Recovery,
        streams: Streams,
        retirements: Retirements,
        workers: Workers,
        standing: Standing,
        throughput: Throughput,
        mail: Mail,
        metrics: Metrics,
        pulse: Callable[[], None],
    ) -> None:
        """``pulse`` is a sign of life, given at every beat."""
        self._requests = requests
        self._queue = queue
        self._replicas = replicas
        self._frontends = frontends
        self._intake = intake
        self._endings = endings
        self._recovery = recovery
        self._streams = streams
        self._retirements = retirements
        self._workers = workers
        self._standing = standing
        self._throughput = throughput
        self._mail = mail
        self._metrics = metrics
        self._pulse = pulse
        self._beat_s = -math.inf
        self._checked: dict[int, bool] = {}
        """Replicas that were found idle and checked since they last ran something."""

    def next_s(self) -> float:
        """When the next thing is due."""
        return min(
            self._beat_s + HEARTBEAT_S,
            self._queue.next_deadline_s(),
            self._intake.next_s(),
            self._endings.next_s(),
            self._recovery.next_s(),
            self._streams.next_s(),
            self._retirements.next_s(),
        )

    def run(self, now: float) -> None:
        """Do what is due."""
        self._intake.seat(now)
        self._endings.replay_undelivered(now)
        self._recovery.give_up(now)
        self._give_up_orphans()
        if self._retirements.run(now):
            self.announce(now)
        if now >= self._beat_s + HEARTBEAT_S:
            self._beat(now)

    def announce(self, now: float) -> None:
        """Tell every front end how the server stands."""
        status = self._standing.status(now)
        for number in self._frontends.numbers():
            self._mail.to_frontend(number, status)

    def check(self, replica: Replica) -> bool:
        """Whether a replica's blocks are all accounted for; a broken account is a bug of ours."""
        wrong = replica.leases.check()
        if wrong:
            self._metrics.broken_leases.inc()
            _log.error("the leases of replica %d are broken: %s", replica.number, wrong)
        return not wrong

    def _give_up_orphans(self) -> None:
        """End the sequences whose clients did not come back in time."""
        for sequence in self._streams.take_given_up():
            record = self._requests.get(sequence)
            if record is not None:
                self._endings.cancel(record, "client_gone")
        wasted, self._streams.wasted_tokens = self._streams.wasted_tokens, 0
        self._metrics.wasted_tokens.inc(wasted)

    def _beat(self, now: float) -> None:
        if OVERSLEPT_S < now - self._beat_s < math.inf:
            # RACE: the whole server may have been halted, as a machine or a container is. Who is
            # awake again later than we are has not been silent: all get their time anew.
            _log.warning("nothing was done for %.0f s: this process was halted", now - self._beat_s)
            self._frontends.excuse(now)
            self._replicas.excuse(now)
        self._beat_s = now
        self._pulse()
        self._throughput.sample(self._requests.completed, now)
        for number in self._frontends.lapsed(now):
            self._intake.lose(number, "its heartbeat has lapsed", now)
        for replica in self._replicas:
            if replica.review(now):
                _log.warning("replica %d is %s", replica.number, replica.state.value)
            idle = replica.usable and not replica.running
            if idle and not self._checked.get(replica.number):
                self.check(replica)
            self._checked[replica.number] = idle
        self._workers.replace_hung(now)
        self.announce(now)
