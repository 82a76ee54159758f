"""A live sequence as the link keeps it: when to ask for it next, and what its bad ends read like.

Knows neither sockets nor clocks: the time is an argument.
"""

import msgspec

from common.errors import ErrorKind, RequestError
from common.messages import Ended, Keep, Rejected
from frontend.mailbox import Mailbox

GAP_S = 1.0
"""First wait before a gap is asked for again; doubles up to ASK_LIMIT_S."""
STALL_S = 5.0
"""First wait before a sequence that says nothing is asked for; doubles up to ASK_LIMIT_S.

RACE: PUB/SUB may lose the last message of a sequence, after which no gap is ever seen."""
UNANSWERED_S = 2.0
"""First wait before a Submit that was neither accepted nor rejected is repeated."""
ASK_LIMIT_S = 30.0


class Live:
    """A live sequence and when to ask for it next."""

    __slots__ = (
        "_keep",
        "age_s",
        "ask_at",
        "ask_wait",
        "asked_gap",
        "deadline",
        "mailbox",
        "priority",
        "unknown",
    )

    def __init__(
        self,
        mailbox: Mailbox,
        deadline: float | None,
        now: float,
        *,
        priority: int = 0,
        age_s: float = 0.0,
        keep: Keep | None = None,
    ) -> None:
        self.mailbox = mailbox
        self._keep = keep
        self.deadline = deadline
        self.priority = priority
        self.age_s = age_s
        self.unknown = 0
        self.submitted(now)

    @property
    def keep(self) -> Keep | None:
        """How its stream is kept, with what is known of its tokens; None if it is not."""
        box = self.mailbox
        if self._keep is None or box.logprobs is None:
            return None
        tops = list(box.tops) if len(box.tops) == len(box.ids) else []
        return msgspec.structs.replace(
            self._keep, logprobs=list(box.logprobs), tops=tops, started=box.started
        )

    def submitted(self, now: float) -> None:
        """It was handed in: an answer should come soon."""
        self.asked_gap = -1
        self.ask_wait = UNANSWERED_S
        self.ask_at = now + UNANSWERED_S

    def quiet(self, now: float) -> None:
        """There was progress: ask only after a long silence."""
        self.ask_wait = STALL_S
        self.ask_at = now + STALL_S

    def gap(self, index: int, now: float) -> None:
        """A new gap was seen and asked for: ask again soon."""
        self.asked_gap = index
        self.ask_wait = GAP_S
        self.ask_at = now + GAP_S

    def asked(self, now: float) -> None:
        """It was asked for once more: back off."""
        self.ask_wait = min(2 * self.ask_wait, ASK_LIMIT_S)
        self.ask_at = now + self.ask_wait


def rejection(message: Rejected) -> RequestError:
    """What the client reads when a sequence was not taken."""
    if message.reason == "overloaded":
        return RequestError(
            ErrorKind.OVERLOADED, "Model is overloaded", retry_after_s=message.retry_after_s
        )
    if message.reason == "draining":
        return RequestError(
            ErrorKind.UNAVAILABLE,
            "The server is shutting down",
            retry_after_s=message.retry_after_s,
        )
    return RequestError(ErrorKind.VALIDATION, message.message or "the sequence was refused")


def failure(ended: Ended) -> RequestError:
    """What the client reads when a sequence ended without a token saying so."""
    if ended.reason == "expired":
        return RequestError(ErrorKind.TIMEOUT, ended.message or "The deadline has passed")
    if ended.reason == "overloaded":
        return RequestError(
            ErrorKind.OVERLOADED,
            ended.message or "Model is overloaded",
            retry_after_s=ended.retry_after_s,
        )
    return RequestError(ErrorKind.GENERATION, ended.message or "the sequence failed")
