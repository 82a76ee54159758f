"""Faults on purpose, for tests only: a worker that dies, hangs, runs out of memory or slows down.

Runs in the worker, and only where the setting ``debug_faults`` asks for it; without it the engine
knows nothing of all this. A fault is tied to a run of token ids and strikes in every step that
computes a sequence whose prompt contains that run, so a test chooses its victims by their prompts.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from common.errors import StartupError
from common.option import FAULTS_PREFIX
from worker.sequences import Sequence

EXIT_STATUS = 1
_FOREVER_S = 3600.0
_ACTIONS = ("exit", "hang", "memory", "slow")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and to whom."""

    action: str
    """``exit``, ``hang``, ``memory`` or ``slow``."""
    seconds: float
    """How much longer a step takes; of ``slow``."""
    ids: tuple[int, ...]
    """The run of token ids that a prompt has to contain."""


class Faults:
    """Strikes the steps of the sequences that it is meant for."""

    def __init__(
        self,
        faults: Iterable[Fault],
        *,
        sleep: Callable[[float], None] = time.sleep,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """``sleep`` and ``leave`` are how it hangs and how it ends the process."""
        self._faults = tuple(faults)
        self._sleep = sleep
        self._leave = leave
        self._marked: dict[Sequence, list[Fault]] = {}
        """Prompts are searched once, not in every step."""

    def strike(self, sequences: Iterable[Sequence]) -> None:
        """To be called before a step computes these. Raises MemoryError if it should fail."""
        known = self._marked
        self._marked = {
            sequence: known[sequence] if sequence in known else self._meant_for(sequence)
            for sequence in sequences
        }
        due = {fault for faults in self._marked.values() for fault in faults}
        for fault in self._faults:
            if fault in due:
                self._act(fault)

    def _meant_for(self, sequence: Sequence) -> list[Fault]:
        prompt_ids = sequence.spec.prompt_ids
        return [fault for fault in self._faults if _contains(prompt_ids, fault.ids)]

    def _act(self, fault: Fault) -> None:
        if fault.action == "exit":
            self._leave(EXIT_STATUS)
        elif fault.action == "hang":
            self._hang()
        elif fault.action == "memory":
            raise MemoryError("a fault of debug_faults")
        else:
            self._sleep(fault.seconds)

    def _hang(self) -> NoReturn:
        while True:
            self._sleep(_FOREVER_S)


def read(text: str | None) -> Faults | None:
    """What ``debug_faults`` asks for; None if it is empty. Raises StartupError.

    ``test-only:`` is followed by faults such as ``exit@17,23;hang@5,6,7;memory@9;slow=0.5@4``.
    """
    if not text:
        return None
    if not text.startswith(FAULTS_PREFIX):
        raise StartupError(f"debug_faults must begin with {FAULTS_PREFIX}")
    return Faults(_fault(part) for part in text.removeprefix(FAULTS_PREFIX).split(";"))


def _fault(text: str) -> Fault:
    head, _, tail = text.strip().partition("@")
    action, equals, amount = head.partition("=")
    try:
        seconds = float(amount) if equals else 0.0
        ids = tuple(int(number) for number in tail.split(","))
    except ValueError:
        raise _misread(text) from None
    if action not in _ACTIONS or bool(equals) != (action == "slow") or not 0 <= seconds < 1e6:
        raise _misread(text)
    return Fault(action, seconds, ids)


def _misread(text: str) -> StartupError:
    return StartupError(
        f"debug_faults: {text!r} is none of exit@IDS, hang@IDS, memory@IDS and slow=SECONDS@IDS"
    )


def _contains(ids: list[int], run: tuple[int, ...]) -> bool:
    first, length = run[0], len(run)
    return any(
        ids[start] == first and tuple(ids[start : start + length]) == run
        for start in range(len(ids) - length + 1)
    )
