"""What a stream that is taken up has generated before, in the form in which its runs read it.

Pure; runs in front ends.
"""

from collections.abc import Iterator

from common.messages import SequenceSpec, SequenceTokens
from frontend.resume.event_ids import Told
from frontend.runs import Plan, Run

PIECE_TOKENS = 256
"""Tokens that are read and told before anybody else gets a turn."""


def plan_of(spec: SequenceSpec) -> Plan:
    """The plan that a sequence came from."""
    return Plan(
        prompt_ids=spec.prompt_ids,
        max_new_tokens=spec.max_new_tokens,
        sampling=spec.sampling,
        stop_token_ids=spec.stop_token_ids,
        prefill_logprobs=spec.prefill_logprobs,
        grammar=spec.grammar,
        adapter=spec.adapter,
        cache_salt=spec.cache_salt,
    )


class PastTokens:
    """The tokens of one run."""

    def __init__(self, tokens: SequenceTokens, told: Told) -> None:
        self.tokens = tokens
        self._told = told

    def pieces(self) -> Iterator[SequenceTokens]:
        """All tokens in pieces, the end with the last one.

        RACE: a client may have been told all tokens, but not the end, which came by itself. Then it
        comes by itself here, too.
        """
        tokens, told = self.tokens, self._told
        count = len(tokens.ids)
        alone = bool(tokens.finish) and not told.over and told.tokens >= count
        for first in range(0, count, PIECE_TOKENS):
            last = first + PIECE_TOKENS >= count
            piece = slice(first, first + PIECE_TOKENS)
            yield SequenceTokens(
                id=tokens.id,
                attempt=tokens.attempt,
                index=first,
                ids=tokens.ids[piece],
                logprobs=tokens.logprobs[piece],
                tops=tokens.tops[piece],
                finish=tokens.finish if last and not alone else "",
            )
        if alone:
            yield SequenceTokens(tokens.id, tokens.attempt, count, finish=tokens.finish)

    def settle(self, run: Run) -> None:
        """Tell a run that is over how it was started."""
        started = self.tokens.started
        if started is not None:
            run.prefill_logprobs = started.prefill_logprobs
            run.cached_tokens = started.cached_tokens
