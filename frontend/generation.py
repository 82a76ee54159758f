"""One request's life in this process: submit, collect, cancel, let go.

A request is one or more runs (``best_of`` and prompt lists make several), each of which is one
sequence of the link. Owned by the greenlet that answers the client. Knows nothing of HTTP and of
the surfaces: those turn its tokens and texts into answers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import gevent

from common.errors import ErrorKind, RequestError
from common.messages import Delivered, Keep, SequenceSpec, SequenceTokens
from frontend.bell import Bell
from frontend.identity import Origin
from frontend.links import LEAST_S, CancelReason, Links
from frontend.mailbox import Brim, Mailbox
from frontend.resume.kept import Keeping
from frontend.resume.past import PastTokens, plan_of
from frontend.runs import Order, Run, Token
from frontend.text.tokenizer import Tokenizer

NOBODY = Origin()


class ClientGoneError(Exception):
    """The client of this request has left: nobody waits for its outcome."""


class Timings(NamedTuple):
    """Where a run's time went, in seconds."""

    total_s: float
    validation_s: float
    queue_s: float
    inference_s: float


class _Sequence(NamedTuple):
    """A run that has been handed in and not let go yet."""

    run: Run
    mailbox: Mailbox

    def is_taken(self) -> bool:
        """Whether the scheduler has accepted it. Raises RequestError if it refused."""
        if self.mailbox.failure is not None:
            raise self.mailbox.failure
        return self.mailbox.accepted or self.mailbox.over


class Generation:
    """Runs an order to its end. ``close`` has to be called in every case; twice is harmless."""

    def __init__(
        self,
        order: Order,
        link: Links,
        tokenizer: Tokenizer,
        clock: Callable[[], float],
        began: float,
        keeping: Keeping | None = None,
        brim: Brim | None = None,
        origin: Origin = NOBODY,
    ) -> None:
        """``began`` is when the request arrived, by ``clock``.

        ``keeping``: if the client may take the stream up again, or has done so. ``brim``: bounds
        what each run has ready for a client that does not read. ``origin`` goes along for logs.
        """
        past = [] if keeping is None else keeping.past
        plans = [plan_of(kept.spec) for kept in past] or order.plans
        self.runs = [Run(i, plan, tokenizer, order) for i, plan in enumerate(plans)]
        self._keeping = keeping
        self._brim = brim
        self._past: list[tuple[Run, list[Token]]] = []
        """Of a stream that is taken up: what was generated before, to be told anew."""
        self._order = order
        self._link = link
        self._clock = clock
        self._began = began
        self._deadline = began + order.timeout_s if order.timeout_s else math.inf
        self._origin = origin
        self.submitted_at: float | None = None
        """When it was handed in; None before."""
        self.first_at: float | None = None
        """When its first text was on its way to the client, if somebody has noted it."""
        self._bell = Bell()
        self._gone = False
        self._forward: Callable[[Run, list[Token]], bool] | None = None
        self._silence_s: float | None = None
        """The ``timeout_s`` of the step that is on."""
        self._interrupted = False
        self._mistake: Exception | None = None
        """One that was made while tokens were forwarded."""
        self._sequences: dict[int, _Sequence] = {}
        self.timings: dict[int, Timings] = {}
        """Of the runs that ended well, by index."""

    @property
    def over(self) -> bool:
        """Whether every run that was started has ended."""
        return not self._sequences and not self._past

    def client_gone(self) -> None:
        """To be called from any greenlet: nobody is interested any more.

        Cancels at once: the greenlet that answers may be stuck in a write.
        """
        self._gone = True
        self.close()
        self._bell.ring()

    def start(self) -> None:
        """Submit everything and wait until the scheduler has taken it.

        Raises RequestError if it refuses one of the sequences, and ClientGoneError. Nothing is
        left behind then.
        """
        try:
            self.submitted_at = self._clock()
            for run in self.runs:
                self._begin(run)
            self._put_in_order()
            while not all(sequence.is_taken() for sequence in self._sequences.values()):
                self._bell.clear()
                self._wait(None)
                self._check()
            self._check()
        except RequestError:
            self.close("sibling_failed")
            raise
        except BaseException:
            self.close()
            raise

    def step(self, timeout_s: float | None = None) -> list[tuple[Run, list[Token]]]:
        """What is new, for each run that has something; empty after ``timeout_s`` of silence.

        A run that failed comes once, without tokens, with its ``error`` set. Raises
        ClientGoneError, and RequestError when the request's own deadline has passed.
        Empty, too, after ``interrupt``.
        """
        self._silence_s = timeout_s
        while True:
            self._check()
            if self._past:
                gevent.sleep(0)  # nothing else here lets others run
                return [self._past.pop(0)]
            self._bell.clear()
            news = self._news()
            if news or self.over:
                return news
            if not self._wait(timeout_s):
                return []
            if self._interrupted:
                self._interrupted = False
                return []

    def forward(self, take: Callable[[Run, list[Token]], bool]) -> None:
        """Have what is plain taken from the greenlet that receives it, while ``step`` waits.

        Plain is what neither begins nor ends a run, of a request with one run and without stop
        strings; all else is left to ``step``. ``take`` may not wait. It tells whether it has made
        the silence end.
        """
        sequence = self._sequences.get(0)
        if sequence is not None and len(self.runs) == 1 and not self._order.stops:
            self._forward = take
            sequence.mailbox.forward(self._is_forwarded)

    def interrupt(self) -> None:
        """End the ``step`` that waits, from another greenlet."""
        self._interrupted = True
        self._bell.ring()

    def finish(self) -> list[Run]:
        """Run to the end; the runs in order. Raises the first error of any run."""
        while not self.over:
            for run, _ in self.step():
                if run.error is not None:
                    self.close("sibling_failed")
                    raise run.error
        self._check()
        self.flows()
        return self.runs

    def flows(self) -> None:
        """To be called when the first text is there to be sent."""
        self.first_at = self._clock()

    def close(self, reason: CancelReason = "client_gone") -> None:
        """Let everything go that has not ended, and forget it."""
        self._bell.close()
        for index in list(self._sequences):
            self._release(index, reason)

    def _begin(self, run: Run) -> None:
        """Hand a run in, after what it has generated before, unless it is over by that."""
        keeping = self._keeping
        if keeping is None:
            self._submit(run)
            return
        keep = Keep(
            keeping.ticket,
            keeping.owner,
            run.index,
            len(self.runs),
            keeping.memo if run.index == 0 else b"",
        )
        if not keeping.past:
            self._submit(run, keep)
            return
        past = PastTokens(keeping.past[run.index].tokens, keeping.seen.runs[run.index])
        for items in past.pieces():
            self._past.append((run, run.advance([items])))
            if run.over:
                break
            gevent.sleep(0)
        if run.over:
            past.settle(run)
        else:
            self._submit(run, keep, past.tokens)

    def _put_in_order(self) -> None:
        """What the client has read of one token goes first: an event's id tells it of one only."""
        if self._keeping is not None:
            within = self._keeping.seen.within
            self._past.sort(key=lambda told: told[0].index != within)

    def _submit(
        self, run: Run, keep: Keep | None = None, past: SequenceTokens | None = None
    ) -> None:
        plan = run.plan
        spec = SequenceSpec(
            id=self._link.next_id(),
            prompt_ids=plan.prompt_ids,
            max_new_tokens=plan.max_new_tokens,
            sampling=plan.sampling,
            stop_token_ids=plan.stop_token_ids,
            prefill_logprobs=plan.prefill_logprobs,
            grammar=plan.grammar,
            request=self._origin.request,
            traceparent=self._origin.traceparent,
            adapter=plan.adapter,
            cache_salt=plan.cache_salt,
        )
        eager = self._order.incremental or bool(self._order.stops)
        now = self._clock()
        timeout_s = 0.0 if self._deadline == math.inf else max(self._deadline - now, LEAST_S)
        mailbox = self._link.submit(
            spec,
            self._bell.ring,
            eager=eager,
            timeout_s=timeout_s,
            priority=self._order.priority,
            age_s=now - self._began,
            keep=keep,
            past=past,
            brim=self._brim,
        )
        self._sequences[run.index] = _Sequence(run, mailbox)

    def _news(self) -> list[tuple[Run, list[Token]]]:
        news: list[tuple[Run, list[Token]]] = []
        ended: list[int] = []
        for index, (run, mailbox) in self._sequences.items():
            # RACE: the failure is looked at first, so that tokens before it are not lost.
            failure = mailbox.failure
            items = mailbox.take()
            tokens = run.advance(items) if items else []
            if failure is not None and not run.finish:
                run.error = failure
            if run.finish or run.error is not None:
                ended.append(index)
                news.append((run, tokens))
            elif tokens:
                news.append((run, tokens))
        for index in ended:
            self._release(index, "stop_sequence")
        return news

    def _is_forwarded(self, token: int, logprob: float) -> bool:
        """Whether a token was handed on from here: if the request's own greenlet waits for one."""
        bell, silence_s = self._bell, self._silence_s
        if self._forward is None or silence_s is None or not bell.is_waited_for:
            return False
        run = self.runs[0]
        try:
            ends_silence = self._forward(run, [run.next(token, logprob)])
        except Exception as error:
            self._mistake = error  # it is this request's alone
            bell.ring()
            return True
        if ends_silence:
            if self._deadline != math.inf:
                silence_s = min(silence_s, self._deadline - self._clock())
            bell.postpone(silence_s)
        return True

    def _check(self) -> None:
        """Raises ClientGoneError, or RequestError when the deadline has passed."""
        if self._gone:
            raise ClientGoneError
        if self._mistake is not None:
            mistake, self._mistake = self._mistake, None
            raise mistake
        if self._sequences and self._clock() >= self._deadline:
            self.close("deadline")
            raise RequestError(ErrorKind.TIMEOUT, "The deadline of the request has passed")

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait for something to happen; False if nothing did for ``timeout_s``."""
        if self._deadline == math.inf:
            return self._bell.wait(timeout_s)
        left = self._deadline - self._clock()
        happened = self._bell.wait(left if timeout_s is None else min(left, timeout_s))
        is_late = left < math.inf and self._clock() >= self._deadline
        return happened or timeout_s is None or left < timeout_s or is_late

    def _release(self, index: int, reason: CancelReason) -> None:
        """The one place where a sequence is let go."""
        sequence = self._sequences.pop(index)
        run, mailbox = sequence.run, sequence.mailbox
        started = mailbox.started
        if started is not None:
            run.prefill_logprobs = started.prefill_logprobs
            run.cached_tokens = started.cached_tokens
        total = self._clock() - self._began
        validation = (self.submitted_at or self._began) - self._began
        queue = started.queue_s if started is not None else 0.0
        timings = Timings(total, validation, queue, max(total - validation - queue, 0.0))
        if run.finish:
            self.timings[index] = timings
        delivered = Delivered(
            id=mailbox.spec.id,
            success=bool(run.finish),
            generated_tokens=run.generated_tokens,
            total_s=timings.total_s,
            validation_s=timings.validation_s,
            queue_s=timings.queue_s,
            inference_s=timings.inference_s,
        )
        self._link.release(mailbox, delivered, reason)
