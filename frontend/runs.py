"""What a request orders and what comes of it: plans, runs, tokens.

A run turns one sequence's ids into text and finds where it ends. Owned by the greenlet that answers
the client. Knows nothing of HTTP, of sockets, and of the surfaces.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from common.errors import ErrorKind, RequestError
from common.messages import SequenceTokens
from common.sampling import SamplingParameters
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
    grammar: str = ""
    """As in ``SequenceSpec``."""
    adapter: str = ""
    cache_salt: str = ""
    """Likewise."""


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
    shown_special_ids: frozenset[int] = frozenset()
    """Special tokens whose text belongs to the answer's, such as the markers of tool calls."""
    hidden_ids: frozenset[int] = frozenset()
    """Other tokens whose text does not: those by which the client ends it."""
    named_ends: frozenset[int] = frozenset()
    """Tokens that end the answer because the client has said so."""
    priority: int = 0
    """Lower is sooner."""


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
    counted: bool = True
    """False for an end that came after its token: only a stream shows it, and nobody counts it."""


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
        self.cached_tokens = 0
        """Prompt tokens that were not computed for this run; known at its end."""
        self._tokenizer = tokenizer
        self._keep = order.keep_tokens
        self._named_ends = order.named_ends
        self._detokenizer = Detokenizer(
            tokenizer, plan.prompt_ids, shown=order.shown_special_ids, hidden=order.hidden_ids
        )
        self._stops = StopStrings(order.stops) if order.stops else None
        hold = self._stops is not None and not order.show_stop
        self._withheld = Withheld() if hold else None
        self._logprob_sum = 0.0
        self._searched = 0
        """Characters given to the stop search."""
        self._shown = 0
        """Characters shown so far, counted only where there are stop strings."""
        self._cut = False
        self._last: Token | None = None

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
    def matched_stop(self) -> str | None:
        """The stop string that has ended it."""
        if self._stops is None or self.finish != "stop_sequence":
            return None
        return self._stops.matched

    @property
    def matched_stop_token(self) -> int | None:
        """The token that has ended it, if it is one that the client named and not the model's."""
        if self._last is None or self.finish != "eos_token":
            return None
        token = self._last.id
        named = token in self._named_ends and token not in self._tokenizer.stop_token_ids
        return token if named else None

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens; the measure of ``best_of``."""
        return self._logprob_sum / self.generated_tokens if self.generated_tokens else -math.inf

    def advance(self, items: list[SequenceTokens]) -> list[Token]:
        """The tokens in what has arrived, up to the run's end."""
        tokens: list[Token] = []
        for item in items:
            last = len(item.ids) - 1
            for k, token in enumerate(item.ids):
                finish: Finish = item.finish if k == last else ""
                tops = item.tops[k] if item.tops else []
                self._last = self._token(token, item.logprobs[k], tops, finish)
                tokens.append(self._last)
                if self.finish:
                    break
            if item.finish and not item.ids:
                tokens.extend(self._end_without_token(item.finish))
            if self.over:
                break
        if self._keep:
            self._keep_tokens(tokens)
        return tokens

    def next(self, token: int, logprob: float) -> Token:
        """What ``advance`` makes of one token that does not end the run."""
        made = self._last = self._token(token, logprob, [], "")
        if self._keep:
            self.tokens.append(made)
        return made

    def _keep_tokens(self, tokens: list[Token]) -> None:
        """An end that came alone is told by the token that it belongs to."""
        for token in tokens:
            if token.counted:
                self.tokens.append(token)
            else:
                last = self.tokens[-1]
                self.tokens[-1] = last._replace(
                    text=last.text + token.text,
                    shown=last.shown + token.shown,
                    finish=token.finish,
                )

    def _token(
        self, token: int, logprob: float, tops: list[tuple[int, float]], finish: Finish
    ) -> Token:
        detokenizer = self._detokenizer
        text = detokenizer.push(token)
        shown = detokenizer.visible
        if finish:
            rest = detokenizer.finish()
            text, shown = text + rest, shown + rest
        self.generated_tokens += 1
        self._logprob_sum += logprob
        if self._stops is not None:
            text, shown, finish = self._search(self._stops, text, len(shown), finish)
        self.finish = finish
        special = self._tokenizer.is_special(token)
        return Token(token, text, shown, logprob, special, tops, finish)

    def _end_without_token(self, finish: Finish) -> list[Token]:
        """An end that came alone: its token was received before, without the end.

        So it is when a sequence is handed in again with nothing left to generate. That token is
        repeated, uncounted, with the text that is still owed: a native stream can tell its end
        only by an event with a token.
        """
        if self._last is None:
            self.error = RequestError(ErrorKind.INCOMPLETE, "Incomplete generation")
            return []
        rest = self._detokenizer.finish()
        shown = rest if self._withheld is None else self._withheld.release(0) + rest
        self._shown += len(shown)
        self.finish = finish
        special = self._last.special and not rest
        return [
            self._last._replace(
                text=rest, shown=shown, special=special, tops=[], finish=finish, counted=False
            )
        ]

    def _search(
        self, stops: StopStrings, text: str, plain: int, finish: Finish
    ) -> tuple[str, str, Finish]:
        """A token's text, what it shows, and its end, with stop strings taken into account.

        Those that end within the least tokens that are wanted are not, as in vLLM.
        The first ``plain`` characters of ``text`` are no special token's.
        """
        counts = self.generated_tokens > self.plan.sampling.min_new_tokens
        end = stops.push(text, counts=counts)
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
