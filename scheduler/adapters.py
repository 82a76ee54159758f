"""Which adapters are in use, as gateways want to know it who route by adapter.

Owns nothing but when that changed last. A scrape may come in a thread of its own: this only reads,
and takes copies.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from common.adapters import Adapter
from scheduler.queue import Queue
from scheduler.replicas import Replicas
from scheduler.requests import Record
from scheduler.series import Labelled

LABELS = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")
"""How many there may be in a step, and names, separated by commas."""


class AdaptersInUse:
    """The series; its value is a time."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        queue: Queue,
        replicas: Replicas,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._names: dict[str, str] = {}
        for adapter in adapters:  # of several with the same weights, the first gives the name
            self._names.setdefault(adapter.digest, adapter.name)
        self._count = len(adapters)
        self._queue = queue
        self._replicas = replicas
        self._wall_clock = wall_clock
        self._last = ("", "")
        self._changed_s = wall_clock()

    def series(self) -> Labelled:
        """The one line of it."""
        now = (self._running(), self._waiting()) if self._count else ("", "")
        if now != self._last:
            self._last, self._changed_s = now, self._wall_clock()
        return {(str(self._count), *now): self._changed_s}

    def _running(self) -> str:
        return self._listed(
            record for replica in self._replicas for record in list(replica.running.values())
        )

    def _waiting(self) -> str:
        return self._listed(self._queue.records())

    def _listed(self, records: Iterable[Record]) -> str:
        digests = {record.spec.adapter for record in records}
        return ",".join(name for digest, name in self._names.items() if digest in digests)
