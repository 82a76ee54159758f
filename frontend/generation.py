"""One request's life in this process: submit, collect, cut at stop strings, cancel, let go.

A request is one or more runs (``best_of`` and prompt lists make several), each of which is one
sequence of the link. Owned by the greenlet that answers the client. Knows nothing of HTTP and of
the surfaces: those turn its tokens and texts into answers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gevent.event import Event

from common.errors import ErrorKind, RequestError
from common.messages import Delivered, SequenceSpec, SequenceTokens
from common.sampling import SamplingParameters
from frontend.answers import ClientGoneError
from frontend.link import CancelReason, Links
from frontend.mailbox import Mailbox
from frontend.text.detokenizer import Detokenizer
from frontend.text.stop_strings import StopStrings
from frontend.text.tokenizer import Tokenizer
from frontend.withhold import Withheld

Finish = Literal["", "length", "eos_token", "stop_sequence"]


@dataclass(frozen=True)
class Plan:
    """One sequence to be generated."""

    prompt_ids: list[int]
    max_new_tokens: int
    sampling: SamplingParameters
    stop_token_ids: list[int]
    prefill_logprobs: bool = False


@dataclass(frozen=True)
class Order:
    """A validated request: what to generate, and how its surface wants to see it."""

    plans: list[Plan]
    stops: list[str]
    show_stop: bool = True
    """Whether the stop string belongs to the text (TGI) or not (OpenAI)."""
    incremental: bool = True
    """Whether tokens are wanted as they come."""
    keep_tokens: bool = False
    """Whether ``Run.tokens`` is wanted at the end."""
    timeout_s: float = 0.0
    """Ends the request with an error; 0 is no limit."""


class Token(NamedTuple):
    """One generated token."""

    id: int
    text: str
    """Its text, special tokens included; cut after a stop string if that is shown."""
    shown: str
    """What it adds to the text of the answer; differs while text is withheld."""
    logprob: float
    special: bool
    tops: list[tuple[int, float]]
    finish: Finish


class Timings(NamedTuple):
    """Where a run's time went, in seconds."""

    total_s: float
    validation_s: float
    queue_s: float
    inference_s: float


class Run:
    """One sequence of a request: its tokens so far, its text, its end."""

    def __init__(self, index: int, plan: Plan, tokenizer: Tokenizer, order: Order) -> None:
        self.index = index
        self.plan = plan
        self.finish: Finish = ""
        self.error: RequestError | None = None
        self.generated_tokens = 0
        self.tokens: list[Token] = []
        self.prefill_logprobs: list[float] = []
        self._tokenizer = tokenizer
        self._keep = order.keep_tokens
        self._detokenizer = Detokenizer(tokenizer, plan.prompt_ids)
        self._stops = StopStrings(order.stops) if order.stops else None
        hold = self._stops is not None and not order.show_stop
        self._withheld = Withheld() if hold else None
        self._logprob_sum = 0.0
        self._searched = 0
        """Characters given to the stop search."""
        self._shown = 0
        """Characters shown so far, counted only where there are stop strings."""
        self._cut = False

    @property
    def over(self) -> bool:
        """Whether no more tokens are wanted."""
        return bool(self.finish) or self.error is not None

    @property
    def text(self) -> str:
        """The answer's text so far."""
        text: str = self._detokenizer.text
        return text[: self._shown] if self._cut else text

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens; the measure of ``best_of``."""
        return self._logprob_sum / self.generated_tokens if self.generated_tokens else -math.inf

    def advance(self, items: list[SequenceTokens]) -> list[Token]:
        """The tokens in what has arrived, up to the run's end."""
        tokens: list[Token] = []
        for item in items:
            last = len(item.ids) - 1
            for k in range(len(item.ids)):
                finish: Finish = item.finish if k == last else ""
                tops = item.tops[k] if item.tops else []
                tokens.append(self._token(item.ids[k], item.logprobs[k], tops, finish))
                if self.finish:
                    break
            if item.finish and not item.ids:
                tokens.append(self._end_without_token(item.finish))
            if self.finish:
                break
        if self._keep:
            self.tokens.extend(tokens)
        return tokens

    def _token(
        self, token: int, logprob: float, tops: list[tuple[int, float]], finish: Finish
    ) -> Token:
        detokenizer = self._detokenizer
        text = detokenizer.push(token)
        plain = len(detokenizer.visible)
        if finish:
            rest = detokenizer.finish()
            text, plain = text + rest, plain + len(rest)
        self.generated_tokens += 1
        self._logprob_sum += logprob
        shown = text[:plain]
        if self._stops is not None:
            text, shown, finish = self._search(self._stops, text, plain, finish)
        self.finish = finish
        special = self._tokenizer.is_special(token)
        return Token(token, text, shown, logprob, special, tops, finish)

    def _end_without_token(self, finish: Finish) -> Token:
        """An end that came alone; for the surfaces a special token, which is not counted."""
        rest = self._detokenizer.finish()
        shown = rest if self._withheld is None else self._withheld.release(0) + rest
        self._shown += len(shown)
        self.finish = finish
        last = self.plan.stop_token_ids[0] if self.plan.stop_token_ids else 0
        return Token(last, rest, shown, 0.0, True, [], finish)

    def _search(
        self, stops: StopStrings, text: str, plain: int, finish: Finish
    ) -> tuple[str, str, Finish]:
        """A token's text, what it shows, and its end, with stop strings taken into account.

        The first ``plain`` characters of ``text`` are no special token's.
        """
        end = stops.push(text)
        before, self._searched = self._searched, self._searched + len(text)
        if end is not None:
            self._cut = True
        if self._withheld is None:
            text = text if end is None else text[: end - before]
            shown = text[:plain]
            finish = finish or ("" if end is None else "stop_sequence")
        else:
            self._withheld.push(text[:plain])
            self._withheld.push(text[plain:], hidden=True)
            if end is not None:
                start = stops.match_start or 0
                shown = self._withheld.release(self._searched - start)
                text, finish = text[: end - before], "stop_sequence"
            else:
                shown = self._withheld.release(0 if finish else stops.pending)
        self._shown += len(shown)
        return text, shown, finish


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
    ) -> None:
        """``began`` is when the request arrived, by ``clock``."""
        self.runs = [Run(i, plan, tokenizer, order) for i, plan in enumerate(order.plans)]
        self._order = order
        self._link = link
        self._clock = clock
        self._began = began
        self._deadline = began + order.timeout_s if order.timeout_s else math.inf
        self._submitted_at = began
        self._wake = Event()
        self._gone = False
        self._sequences: dict[int, _Sequence] = {}
        self.timings: dict[int, Timings] = {}
        """Of the runs that ended well, by index."""

    @property
    def over(self) -> bool:
        """Whether every run has ended."""
        return all(run.over for run in self.runs)

    def client_gone(self) -> None:
        """To be called from any greenlet: nobody is interested any more."""
        self._gone = True
        self._wake.set()

    def start(self) -> None:
        """Submit everything and wait until the scheduler has taken it.

        Raises RequestError if it refuses one of the sequences, and ClientGoneError. Nothing is
        left behind then.
        """
        try:
            self._submitted_at = self._clock()
            for run in self.runs:
                self._submit(run)
            while not all(sequence.is_taken() for sequence in self._sequences.values()):
                self._wake.clear()
                self._wait(None)
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
        """
        while True:
            self._check()
            self._wake.clear()
            news = list(self._news())
            if news or self.over:
                return news
            if not self._wait(timeout_s):
                return []

    def finish(self) -> list[Run]:
        """Run to the end; the runs in order. Raises the first error of any run."""
        while not self.over:
            for run, _ in self.step():
                if run.error is not None:
                    self.close("sibling_failed")
                    raise run.error
        return self.runs

    def close(self, reason: CancelReason = "client_gone") -> None:
        """Let everything go that has not ended, and forget it."""
        for index in list(self._sequences):
            self._release(index, reason)

    def _submit(self, run: Run) -> None:
        plan = run.plan
        spec = SequenceSpec(
            id=self._link.next_id(),
            prompt_ids=plan.prompt_ids,
            max_new_tokens=plan.max_new_tokens,
            sampling=plan.sampling,
            stop_token_ids=plan.stop_token_ids,
            prefill_logprobs=plan.prefill_logprobs,
        )
        eager = self._order.incremental or bool(self._order.stops)
        mailbox = self._link.submit(
            spec, self._wake.set, eager=eager, timeout_s=self._order.timeout_s
        )
        self._sequences[run.index] = _Sequence(run, mailbox)

    def _news(self) -> Iterator[tuple[Run, list[Token]]]:
        for index, sequence in list(self._sequences.items()):
            run, mailbox = sequence.run, sequence.mailbox
            # RACE: the failure is looked at first, so that tokens before it are not lost.
            failure = mailbox.failure
            tokens = run.advance(mailbox.take())
            if failure is not None and not run.finish:
                run.error = failure
            if run.over:
                self._release(index, "stop_sequence")
            if tokens or run.over:
                yield run, tokens

    def _check(self) -> None:
        """Raises ClientGoneError, or RequestError when the deadline has passed."""
        if self._gone:
            raise ClientGoneError
        if self._clock() >= self._deadline:
            self.close("deadline")
            raise RequestError(ErrorKind.TIMEOUT, "The deadline of the request has passed")

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait for something to happen; False if nothing did for ``timeout_s``."""
        left = self._deadline - self._clock()
        if left == math.inf:
            happened = self._wake.wait(timeout_s)
        else:
            happened = self._wake.wait(left if timeout_s is None else min(left, timeout_s))
            happened = happened or timeout_s is None or left < timeout_s
        return bool(happened)

    def _release(self, index: int, reason: CancelReason) -> None:
        """The one place where a sequence is let go."""
        sequence = self._sequences.pop(index)
        run, mailbox = sequence.run, sequence.mailbox
        started = mailbox.started
        if started is not None:
            run.prefill_logprobs = started.prefill_logprobs
        total = self._clock() - self._began
        validation = self._submitted_at - self._began
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
