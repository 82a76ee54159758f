"""Workers that are replaced on purpose: emptied first, so that nobody loses anything but a moment.

Owns the replacements under way, and whom to tell of them. What ran on the worker is preempted, and
goes on on another replica or on the new worker. Stopping the old process and starting a new one is
the operator's work (``launcher/replace.py``).
"""

from dataclasses import dataclass

from common.messages import Retire, Retired
from scheduler.mail import Mail
from scheduler.recovery import Recovery
from scheduler.replicas import Replica, Replicas, ReplicaState
from scheduler.timers import Timers

STOP_LIMIT_S = 30.0
"""A worker that has been emptied, and still runs after so long, is put to use again."""


@dataclass(slots=True)
class _Retirement:
    """One replacement, and who wants to hear of it."""

    replica: Replica
    identity: bytes
    tag_id: int
    is_empty: bool = False


class Retirements:
    """All replacements under way, by the replica's number."""

    def __init__(self, replicas: Replicas, recovery: Recovery, mail: Mail) -> None:
        self._replicas = replicas
        self._recovery = recovery
        self._mail = mail
        self._under_way: dict[int, _Retirement] = {}
        self._limits = Timers()

    def begin(self, identity: bytes, retire: Retire) -> None:
        """Empty a replica for an operator."""
        replica = self._replicas.get(retire.replica)
        retirement = None if replica is None else _Retirement(replica, identity, retire.tag_id)
        if replica is None or retirement is None:
            known = ", ".join(str(replica.number) for replica in self._replicas)
            message = f"there is no replica {retire.replica}, only {known}"
            self._mail.to_identity(identity, Retired(retire.tag_id, "refused", message))
        elif replica.number in self._under_way:
            message = f"replica {replica.number} is being replaced already"
            self._mail.to_identity(identity, Retired(retire.tag_id, "refused", message))
        else:
            self._under_way[replica.number] = retirement
            replica.retiring = True
            self._recovery.move_away(replica)

    def run(self, now: float) -> bool:
        """Tell the operators how far it is; True if a replica is in use again."""
        changed = False
        for number, retirement in list(self._under_way.items()):
            replica = retirement.replica
            if not replica.retiring and replica.state is ReplicaState.READY:
                self._say(retirement, "ready")
                self._drop(number)
            elif not retirement.is_empty and not replica.running:
                retirement.is_empty = True
                self._limits.set(number, now + STOP_LIMIT_S)
                self._say(retirement, "empty")
        for number in self._limits.pop_due(now):
            retirement = self._under_way[number]
            if retirement.replica.usable:
                retirement.replica.retiring = False
                self._say(retirement, "refused", "its process was not stopped: it is used again")
                self._drop(number)
                changed = True
        return changed

    def next_s(self) -> float:
        """When somebody has to have been stopped."""
        return self._limits.next_s()

    def _say(self, retirement: _Retirement, stage: str, message: str = "") -> None:
        told = Retired(retirement.tag_id, stage, message)  # type: ignore[arg-type]
        self._mail.to_identity(retirement.identity, told)

    def _drop(self, number: int) -> None:
        del self._under_way[number]
        self._limits.clear(number)
