r"""Records of sequences: everything known about one, its state, its end.

Owns the records and which transitions are allowed; a record outlives its computation until the
front end has its end. Knows neither queue, blocks nor workers: other files act, then ``move`` here.

::

    new -> QUEUED <-> DISPATCHED -> FINISHED -> ENDED
              ^          |   \-> CANCELLING -> ENDED
              |          v
              |      PREEMPTING       (release sent, to be queued again)
              |          |
              `---- RECOVERING        (worker lost, the front end is to hand it in again)

Every record ends exactly once, with a reason.
"""

import math
from enum import Enum

from common.adapters import DIGEST_CHARACTERS
from common.messages import (
    BLOCK_TOKENS,
    SequenceSpec,
    SequenceTokens,
    Started,
    Submit,
    WorkerFinish,
    frontend_of,
)
from scheduler.blocks import KeyChain, blocks_for

MAX_TOKEN_ID = 2**31 - 1
MOST_RUNS = 4096
"""Sequences of one stream: more than any request can ask for."""
SUSPECT_DEATHS = 2
"""A sequence that ran when so many workers died runs alone from then on …"""
CLEARING_TOKENS = 4
"""… until it has got so much further than it was at the last death."""


class State(Enum):
    """Where a sequence is."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    PREEMPTING = "preempting"
    """To be released by its worker, then queued again."""
    CANCELLING = "cancelling"
    """To be released by its worker, then forgotten."""
    RECOVERING = "recovering"
    FINISHED = "finished"
    """Kept until its end has reached the front end."""
    ENDED = "ended"


LIVE = frozenset({State.QUEUED, State.DISPATCHED, State.PREEMPTING, State.RECOVERING})
"""Somebody waits for more of it: these count against ``max_concurrent_requests``."""
TRANSITIONS = {
    State.QUEUED: {State.DISPATCHED, State.FINISHED, State.ENDED},
    State.DISPATCHED: {
        State.PREEMPTING,
        State.CANCELLING,
        State.RECOVERING,
        State.FINISHED,
        State.ENDED,
    },
    State.PREEMPTING: {
        State.QUEUED,
        State.CANCELLING,
        State.RECOVERING,
        State.FINISHED,
        State.ENDED,
    },
    State.CANCELLING: {State.ENDED},
    State.RECOVERING: {State.QUEUED, State.ENDED},
    State.FINISHED: {State.QUEUED, State.ENDED},
    State.ENDED: set(),
}


class BadTransitionError(RuntimeError):
    """A bug: a record was to go where its state does not lead."""


class Record:
    """One sequence. Only ``Requests`` changes ``state``."""

    __slots__ = (
        "age_s",
        "arrival_s",
        "attempt",
        "base",
        "chain",
        "cleared_at",
        "deadline_s",
        "deaths",
        "delivered",
        "finish",
        "finished_s",
        "first_token_s",
        "frontend",
        "generated",
        "id",
        "interrupted_s",
        "logprobs",
        "order",
        "orphaned_at",
        "owes_from",
        "preemptions",
        "prefill_left",
        "priority",
        "queue_s",
        "reason",
        "replays",
        "replica",
        "spec",
        "start_by_s",
        "started",
        "state",
        "steady_until",
        "ticket",
        "tops",
    )

    def __init__(self, submit: Submit, *, order: int, now: float) -> None:
        """``order`` counts arrivals."""
        self.spec: SequenceSpec = submit.spec
        self.id = submit.spec.id
        self.frontend = frontend_of(submit.spec.id)
        self.priority = submit.priority
        self.order = order
        self.arrival_s = now
        self.age_s = submit.age_s
        """How old its request was on arrival."""
        self.first_token_s = -1.0
        """When its first new token was there, or the first after it was handed in by a front end
        that knew another scheduler; negative before."""
        self.interrupted_s = -1.0
        """Since when its text has stood still for want of blocks or of a worker; negative while it
        goes on."""
        self.finished_s = -1.0
        """When all tokens were there; negative before."""
        self.state = State.QUEUED
        self.steady_until = 0
        """Its tokens before this index need no second look: it decodes, and fills a block that it
        has begun. Found by ``reports.py``; over with the next change of state."""
        self.replica: int | None = None
        """The replica that runs it, from DISPATCHED until its blocks are back."""
        self.prefill_left = 0
        """Known tokens that its worker has yet to compute."""
        self.queue_s = -1.0
        """Seconds until the first dispatch; negative before."""
        self.start_by_s = now + submit.queue_timeout_s if submit.queue_timeout_s > 0 else math.inf
        """When the first dispatch must have come."""
        self.preemptions = 0
        self.deaths = 0
        """Workers that died while it ran, since it was last found harmless."""
        self.cleared_at = 0
        """Known tokens with which a suspect is found harmless."""
        self.delivered = False
        """The front end saw the end before we did."""
        self.owes_from = -1
        """From this index on its front end misses tokens that we do not have; negative: none."""
        self.replays = 0
        """How often the whole of a finished record was sent."""
        self.ticket = "" if submit.keep is None else submit.keep.ticket
        """Names the stream that it belongs to, if its client may take that up again."""
        self.orphaned_at = -1
        """Tokens generated when its client was lost; negative while there is one."""
        self.take_over(submit, now)

    def take_over(self, submit: Submit, now: float) -> None:
        """Begin an attempt with what the front end says that its client has received."""
        self.attempt = submit.attempt
        self.deadline_s = now + submit.timeout_s if submit.timeout_s > 0 else math.inf
        self.generated = list(submit.generated_ids)
        keep = submit.keep
        self.base = len(self.generated) if keep is None else 0
        """The front end has the tokens before this index; of them we know only the ids."""
        self.logprobs: list[float] = [] if keep is None else list(keep.logprobs)
        """Of the tokens from ``base`` on."""
        self.tops: list[list[tuple[int, float]]] = [] if keep is None else list(keep.tops)
        """Of the tokens from ``base`` on; empty unless asked for."""
        self.started: Started | None = None if keep is None else keep.started
        self.finish: WorkerFinish = ""
        self.reason = ""
        """Why it ended; known from FINISHED or CANCELLING on."""
        spec = self.spec
        self.chain = KeyChain(spec.cache_salt, spec.prompt_ids, self.generated, spec.adapter)

    @property
    def wait_ends_s(self) -> float:
        """When it may wait in the queue no longer. A sequence that has run waits as it has to."""
        return min(self.deadline_s, self.start_by_s) if self.queue_s < 0 else self.deadline_s

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what kills workers: it runs alone until that is known."""
        return self.deaths >= SUSPECT_DEATHS

    def bereaved(self) -> None:
        """A worker died while this ran: it is a suspect after the second time."""
        self.deaths += 1
        self.cleared_at = self.known_tokens + CLEARING_TOKENS

    @property
    def known_tokens(self) -> int:
        """Tokens of prompt and output so far."""
        return len(self.spec.prompt_ids) + len(self.generated)

    @property
    def most_blocks(self) -> int:
        """Blocks for the prompt and everything that may be generated."""
        return blocks_for(len(self.spec.prompt_ids) + self.spec.max_new_tokens)

    @property
    def seniority(self) -> tuple[int, int]:
        """Smaller is more worth keeping: by priority, then by arrival."""
        return self.priority, self.order

    def natural_end(self) -> WorkerFinish:
        """Why nothing is left to generate; empty if something is."""
        if len(self.generated) >= self.spec.max_new_tokens:  # first, as in the worker
            return "length"
        stopped = self.generated and self.generated[-1] in self.spec.stop_token_ids
        return "eos_token" if stopped else ""

    def append(self, tokens: SequenceTokens) -> bool:
        """Take in what a worker reported; False if it contradicts what is known.

        PERF: the lists of single steps are not kept. A million small lists would make every full
        garbage collection take a tenth of a second.
        """
        ids, logprobs, generated = tokens.ids, tokens.logprobs, self.generated
        if tokens.index != len(generated) or len(logprobs) != len(ids):
            return False
        if tokens.tops:
            if len(tokens.tops) != len(ids):
                return False
            self.tops += tokens.tops
        generated += ids
        self.logprobs += logprobs
        if self.started is None:
            self.started = tokens.started
        return True

    @property
    def is_orphan(self) -> bool:
        """Whether its client is gone, and may come back."""
        return self.orphaned_at >= 0

    def inherit(self, other: "Record") -> bool:
        """Take over what another record of the same run has beyond ours; False if nothing.

        Both have been front ends' records of one text, so one begins with the other.
        """
        count = len(self.generated)
        if len(other.generated) <= count or other.generated[:count] != self.generated:
            return False
        if other.base or len(self.logprobs) != count:
            return False
        self.generated.extend(other.generated[count:])
        self.logprobs.extend(other.logprobs[count:])
        self.tops.extend(other.tops[count:])
        return True

    def items_from(self, index: int) -> list[SequenceTokens]:
        """All tokens from ``index`` on, and the end if there is one, as at most one item."""
        start = max(index, self.base)
        if start >= len(self.generated) and not self.finish:
            return []
        skip = min(start, len(self.generated)) - self.base
        return [
            SequenceTokens(
                id=self.id,
                attempt=self.attempt,
                index=self.base + skip,
                ids=self.generated[self.base + skip :],
                logprobs=self.logprobs[skip:],
                tops=self.tops[skip:] if len(self.tops) == len(self.logprobs) else [],
                finish=self.finish,
                started=self.started,
            )
        ]


def problem_with(submit: Submit) -> str:
    """Why a submission makes no sense; empty if it does.

    Front ends have validated it: this only keeps a faulty one from doing harm to others.
    """
    spec = submit.spec
    if not spec.prompt_ids or spec.max_new_tokens < 1:
        return "a sequence needs at least one prompt token and one new token"
    for ids in (spec.prompt_ids, submit.generated_ids):
        if ids and not 0 <= min(ids) <= max(ids) <= MAX_TOKEN_ID:
            return "a token id is out of range"
    if len(spec.adapter.encode()) > DIGEST_CHARACTERS:
        return "the adapter's digest is none"
    if len(submit.generated_ids) > spec.max_new_tokens:
        return "more tokens were generated than asked for"
    keep = submit.keep
    if keep is not None:
        count = len(submit.generated_ids)
        if not (0 <= keep.run < keep.runs <= MOST_RUNS and len(keep.logprobs) == count):
            return "the stream that it belongs to makes no sense"
        if len(keep.tops) not in (0, count):
            return "the candidates of its tokens are incomplete"
    if not math.isfinite(submit.timeout_s) or not math.isfinite(submit.queue_timeout_s):
        return "the timeout is not a number of seconds"
    if len(spec.prompt_ids) + spec.max_new_tokens > MAX_TOKEN_ID - BLOCK_TOKENS:
        return "the sequence is too long"
    return ""


class Requests:
    """All records that have not ended."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._order = 0
        self.live = 0
        """Records in a LIVE state whose end has not reached the front end."""
        self.completed = 0
        """How often a record stopped being live."""

    def __len__(self) -> int:
        return len(self._records)

    def get(self, sequence: int) -> Record | None:
        """The record of a sequence that has not ended."""
        return self._records.get(sequence)

    def interrupted(self) -> list[float]:
        """Since when each text that stands still does so; for scrapes."""
        return [r.interrupted_s for r in list(self._records.values()) if r.interrupted_s >= 0]

    def of_frontend(self, frontend: int) -> list[Record]:
        """The records that a front end owns. Looks at all of them: for its death only."""
        return [record for record in self._records.values() if record.frontend == frontend]

    def accept(self, submit: Submit, now: float) -> Record:
        """A new record, QUEUED."""
        self._order += 1
        record = Record(submit, order=self._order, now=now)
        self._records[record.id] = record
        self.live += 1
        return record

    def move(self, record: Record, state: State) -> None:
        """Change a record's state. Raises BadTransitionError where the old one does not lead."""
        if state not in TRANSITIONS[record.state]:
            raise BadTransitionError(f"{record.id}: {record.state.value} to {state.value}")
        if not record.delivered:
            was_live, is_live = record.state in LIVE, state in LIVE
            if was_live and not is_live:
                self._leave()
            elif is_live and not was_live:
                self.live += 1
        record.state = state
        record.steady_until = 0

    def deliver(self, record: Record) -> None:
        """The front end has the end of a LIVE record: its worker's own report is still to come.

        RACE: worker to front end to us may be faster than that report, and a client that asks again
        at once must find its seat free.
        """
        if not record.delivered:
            record.delivered = True
            self._leave()

    def end(self, record: Record) -> None:
        """Forget a record."""
        self.move(record, State.ENDED)
        del self._records[record.id]

    def _leave(self) -> None:
        self.live -= 1
        self.completed += 1
