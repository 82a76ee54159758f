"""One live sequence's tokens, put in order: each exactly once, without gaps.

Owned by the link, which fills it; emptied by the one greenlet that writes to the client. Knows
nothing of sockets, clocks and text. What it has put in order is the truth about the sequence: on
resubmission exactly these ids travel to the scheduler.
"""

from collections.abc import Callable
from typing import NamedTuple

from common.errors import RequestError
from common.messages import SequenceSpec, SequenceTokens, Started, WorkerFinish


class Brim(NamedTuple):
    """How much may wait to be taken, and whom to tell, once, when it is more."""

    items: int
    spill: Callable[[], None]


class Mailbox:
    """Takes items in any order and any number of times; gives each token once, in order."""

    __slots__ = (
        "_brim",
        "_eager",
        "_forward",
        "_fresh",
        "_held",
        "_wake",
        "accepted",
        "attempt",
        "failure",
        "finish",
        "ids",
        "logprobs",
        "spec",
        "started",
        "tops",
    )

    def __init__(
        self,
        spec: SequenceSpec,
        wake: Callable[[], None],
        *,
        eager: bool,
        keeps: bool = False,
        brim: Brim | None = None,
    ) -> None:
        """``wake`` is called when there is something to take.

        Without ``eager`` it is called only when the sequence is over. With ``keeps`` everything
        about the tokens is kept, not their ids alone.
        """
        self.spec = spec
        self.attempt = 0
        self.accepted = False
        self.ids: list[int] = []
        """Every token so far, in order; the next one has index ``len(ids)``."""
        self.logprobs: list[float] | None = [] if keeps else None
        """With ``keeps``: one for each id."""
        self.tops: list[list[tuple[int, float]]] = []
        """With ``keeps`` and where they were asked for: one list for each id."""
        self.finish: WorkerFinish = ""
        self.failure: RequestError | None = None
        self.started: Started | None = None
        self._fresh: list[SequenceTokens] = []
        self._held: dict[int, SequenceTokens] = {}
        self._wake = wake
        self._eager = eager
        self._brim = brim
        self._forward: Callable[[int, float], bool] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.finish) or self.failure is not None

    @property
    def missing(self) -> int | None:
        """Index of the first token of a gap; None while there is no gap."""
        return len(self.ids) if self._held else None

    def put(self, item: SequenceTokens) -> bool:
        """Whether the item brought the sequence forward.

        Stale attempts and duplicates are dropped; what lies beyond a gap is held until it closes.
        """
        if item.attempt != self.attempt or self.finish or self.failure is not None:
            return False
        count, index = len(item.ids), item.index
        if len(item.logprobs) != count or len(item.tops) not in (0, count) or index < 0:
            return False
        if index + count > self.spec.max_new_tokens:
            return False
        if index > len(self.ids):
            held = self._held.get(index)
            if held is None or len(held.ids) < count or item.finish:
                self._held[index] = item
            return False
        if not self._append(item):
            return False
        if self._held:
            self._close_gaps()
        if not self.accepted or self._eager or self.finish:
            self.accepted = True
            self._wake()
        if self._brim is not None and len(self._fresh) > self._brim.items:
            brim, self._brim = self._brim, None
            brim.spill()
        return True

    def forward(self, take: Callable[[int, float], bool]) -> None:
        """From now on, offer the next token and its log-probability to ``take`` as it comes.

        It tells whether it has taken them. What is unusual never comes this way.
        """
        self._forward = take

    def pass_on(self, attempt: int, index: int, token: int, logprob: float) -> bool:
        """Whether a token was the next one and was taken. If not, it is to be ``put``."""
        ids = self.ids
        if (
            self._forward is None
            or index != len(ids)
            or attempt != self.attempt
            or self._fresh
            or self._held
            or self.finish
            or self.failure is not None
            or index >= self.spec.max_new_tokens
            or not self._forward(token, logprob)
        ):
            return False
        ids.append(token)
        if self.logprobs is not None:
            self.logprobs.append(logprob)
        self.accepted = True
        return True

    def take(self) -> list[SequenceTokens]:
        """What came since the last call; the caller owns it."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def begin_with(self, past: SequenceTokens) -> None:
        """Tokens that were generated before the sequence is handed in; nobody takes them here."""
        self.started = past.started
        self._note(past)

    def accept(self) -> None:
        """The scheduler has queued the current attempt."""
        if not self.accepted:
            self.accepted = True
            self._wake()

    def restart(self) -> int:
        """The number of a new attempt; what was held of the old one is dropped."""
        self.attempt += 1
        self.accepted = False
        self._held.clear()
        return self.attempt

    def fail(self, error: RequestError) -> None:
        """The sequence ends here, unless it already has."""
        if not self.over:
            self.failure = error
            self._held.clear()
            self._wake()

    def _close_gaps(self) -> None:
        """Append what was held, as far as it follows."""
        while self._held and not self.finish:
            first = min(self._held)
            if first > len(self.ids):
                return
            self._append(self._held.pop(first))
        if self.finish:
            self._held.clear()

    def _append(self, item: SequenceTokens) -> bool:
        """Append what is new in an item that begins at or before the next index."""
        if item.started is not None and self.started is None:
            self.started = item.started
        known = len(self.ids) - item.index
        if known > len(item.ids) or (known == len(item.ids) and not item.finish):
            return False
        if known:
            item = SequenceTokens(
                id=item.id,
                attempt=item.attempt,
                index=len(self.ids),
                ids=item.ids[known:],
                logprobs=item.logprobs[known:],
                tops=item.tops[known:],
                finish=item.finish,
            )
        self._note(item)
        self.finish = item.finish
        self._fresh.append(item)
        return True

    def _note(self, item: SequenceTokens) -> None:
        self.ids.extend(item.ids)
        if self.logprobs is not None:
            self.logprobs.extend(item.logprobs)
            self.tops.extend(item.tops)
