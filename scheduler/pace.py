"""How much of a prompt a replica reads in one step while other sequences decode.

Owns the fit of what steps cost, one object per replica. Knows neither sequences nor messages.

A step that reads a piece of a prompt holds up every stream that decodes beside it.
``--max-stall-ms`` bounds that: pieces are as long as a step may last, less what decoding alone
takes, divided by what a prompt token costs. Both are measured, with old steps forgotten, since the
cost of a token grows with what stands before it. The latest piece counts if it was dearer than the
mean: too short a piece costs a little time, too long a one is what this is to prevent.
"""

from common.messages import StepTiming

FEWEST_TOKENS = 32
"""Prompts get on, however little time is left beside decoding."""
_UNKNOWN_TOKENS = 256
"""Before anything was measured."""
_KEPT = 0.8
"""Weight of what was known against a new step."""
_SHORT_TOKENS = 16
"""The cost of shorter pieces says nothing about a token's."""
_MARGIN = 0.8
"""Share of the bound that is aimed at: steps do not all take the same time."""


class Pace:
    """Measures the steps of one replica; a new process needs a new one."""

    def __init__(self, max_stall_s: float, step_tokens: int, longest_step_s: float) -> None:
        """``step_tokens`` in ``longest_step_s`` is what the warm-up did; 0 s if nobody measured.

        ``max_stall_s`` 0 is no bound.
        """
        self._max_stall_s = max_stall_s
        self._step_tokens = step_tokens
        self._decode_s = 0.0
        self._token_s = longest_step_s / step_tokens
        self._latest_token_s = 0.0

    def observe(self, timing: StepTiming) -> None:
        """A step has been made."""
        if not timing.total_s >= 0.0:  # NaN, too
            return
        if not timing.prefill_tokens:
            self._decode_s = _mean(self._decode_s, timing.total_s)
        elif timing.prefill_tokens >= _SHORT_TOKENS:
            beside_s = self._decode_s if timing.decode_tokens else 0.0
            cost_s = max(timing.total_s - beside_s, 0.0) / timing.prefill_tokens
            self._token_s = _mean(self._token_s, cost_s)
            self._latest_token_s = cost_s

    @property
    def chunk_tokens(self) -> int:
        """Prompt tokens of a step in which others decode; at most the step's tokens."""
        if not self._max_stall_s:
            return self._step_tokens
        token_s = max(self._token_s, self._latest_token_s)
        if not token_s:
            return min(_UNKNOWN_TOKENS, self._step_tokens)
        left_s = _MARGIN * self._max_stall_s - self._decode_s
        tokens = int(min(max(left_s, 0.0) / token_s, self._step_tokens))
        return min(max(tokens, FEWEST_TOKENS), self._step_tokens)


def _mean(known: float, new: float) -> float:
    return _KEPT * known + (1 - _KEPT) * new if known else new
