"""How much of a prompt is read in one step while other sequences decode.

Runs in the worker, one object per engine. Owns the fit of what its steps have cost. Knows neither
sequences nor tensors nor clocks.

A step that reads a piece of a prompt holds up every stream that decodes beside it, and the
scheduler says for how long it may. The cost of a prompt's token has two parts: one that is always
the same, and attention to all tokens before it. So costs are counted in units of a first token:
the token at position p costs 1 + p × slope. The slope belongs to model and machine; it is the slope
of a line through the costs of many pieces by their mean positions. What a unit takes changes with
whatever else the machine does; the latest ones count if they were dearer than the mean: too short a
piece costs a little time, too long a one is what this is to prevent. Pieces count by their length:
one short prompt that came while the front end was busy says little about the next thousand tokens.
"""

import math

FEWEST_TOKENS = 32
"""Prompts get on, however little time is left beside decoding."""
_UNKNOWN_TOKENS = 128
"""Before anything was measured; and at least so many where the bound is lost: short pieces would
only make the wait for prompts long."""
_KEPT, _KEPT_LONG = 0.8, 0.98
"""Weight of what was known against a new step: of what decoding takes, and of the slope."""
_MEAN_TOKENS, _LATEST_TOKENS = 1500.0, 150.0
"""So many tokens later, what was known of a unit weighs 1/e: for the mean, for the latest ones."""
_PASS_SHARE = 0.5
"""Of a step that only reads prompts, what one that decodes takes is not the tokens' cost either: it
is that of reading the weights. But no more than this share of the step."""
_SHORT_TOKENS = 16
"""The cost of shorter pieces says nothing about a token's."""
_MARGIN = 0.8
"""Share of the bound that is aimed at: steps do not all take the same time."""
_SHARE = 0.5
"""Where decoding alone takes longer than the bound, prompts may take so much of that time."""
_LEAST_SHARE = 0.05
"""A first token costs at least this share of a mean one, whatever the line says."""


class Allowance:
    """What one step may read of prompts: so many units, but ``FEWEST_TOKENS`` in any case."""

    __slots__ = ("_fewest", "_slope", "_units")

    def __init__(self, units: float, slope: float) -> None:
        self._units = units
        self._slope = slope
        self._fewest = FEWEST_TOKENS

    def take(self, position: int, most: int) -> int:
        """How many tokens from ``position`` on are read, ``most`` at most; they are used up."""
        tokens = min(most, max(self._affordable(position), self._fewest))
        self._fewest = max(self._fewest - tokens, 0)
        self._units -= units_of(tokens, position, self._slope)
        return tokens

    def spare(self, position: int, most: int) -> int:
        """As ``take``, of what is not needed for prompts: maybe none."""
        tokens = min(most, self._affordable(position))
        self._units -= units_of(tokens, position, self._slope)
        return tokens

    def _affordable(self, position: int) -> int:
        """Solves ``units_of(tokens, position, slope) = units``."""
        if self._units <= 0:
            return 0
        first = 1 + position * self._slope
        return int(2 * self._units / (first + math.sqrt(first**2 + 2 * self._slope * self._units)))


class Pace:
    """Measures the steps of one engine."""

    def __init__(self, longest_step_s: float) -> None:
        """What a step of as many tokens as there may be takes; 0 s if nobody has measured it."""
        self.longest_step_s = longest_step_s
        """That, or the longest step so far if it was longer."""
        self._known_step_s = longest_step_s
        self._max_stall_s, self._step_tokens = 0.0, 1
        self._decode_s = 0.0
        self._mean, self._latest = _Rate(_MEAN_TOKENS), _Rate(_LATEST_TOKENS)
        self._line = Line()

    def bound(self, max_stall_s: float, step_tokens: int) -> None:
        """What the scheduler wants of steps in which some sequences decode; 0 s is no bound."""
        self._max_stall_s, self._step_tokens = max_stall_s, step_tokens

    def observe(self, seconds: float, decoding: int, pieces: list[tuple[int, int]]) -> None:
        """A step has been made: of so many decoding sequences and (position, tokens) beside."""
        self.longest_step_s = max(self.longest_step_s, seconds)
        tokens = sum([piece[1] for piece in pieces])
        if not tokens:
            self._decode_s = _mean(self._decode_s, seconds)
        elif tokens >= _SHORT_TOKENS:
            rest_s = self._decode_s if decoding else min(self._decode_s, _PASS_SHARE * seconds)
            cost_s = max(seconds - rest_s, 0.0)
            attended = sum([units_of(count, start, 1.0) - count for start, count in pieces])
            self._line.add(attended / tokens, cost_s / tokens)
            for rate in (self._mean, self._latest):
                rate.add(tokens, attended, cost_s)

    def allowance(self) -> Allowance | None:
        """Of a step in which others decode; None: there is no bound."""
        if not self._max_stall_s:
            return None
        known_s = self._known_step_s / self._step_tokens
        slope = self._line.slope
        unit_s = max(self._mean.unit_s(slope), self._latest.unit_s(slope)) or known_s
        if not unit_s:
            return Allowance(_UNKNOWN_TOKENS, 0.0)
        if self._decode_s > self._max_stall_s:
            units = max(_SHARE * self._decode_s / unit_s, _UNKNOWN_TOKENS)
        else:
            units = max(_MARGIN * self._max_stall_s - self._decode_s, 0.0) / unit_s
        return Allowance(units, slope)

    @property
    def piece_tokens(self) -> int:
        """Of a new prompt, in a step in which others decode; 0: as much as fits."""
        allowance = self.allowance()
        return 0 if allowance is None else allowance.take(0, self._step_tokens)


class _Rate:
    """What a unit takes; what is old is forgotten by the tokens that came since."""

    def __init__(self, memory_tokens: float) -> None:
        self._memory_tokens = memory_tokens
        self._tokens = self._attended = self._seconds = 0.0

    def add(self, tokens: int, attended: float, seconds: float) -> None:
        kept = math.exp(-tokens / self._memory_tokens)
        self._tokens = kept * self._tokens + tokens
        self._attended = kept * self._attended + attended
        self._seconds = kept * self._seconds + seconds

    def unit_s(self, slope: float) -> float:
        """By what is known of the slope now; 0 before the first piece."""
        units = self._tokens + slope * self._attended
        return self._seconds / units if units else 0.0


class Line:
    """Costs by something that they grow with: a straight line, with old points forgotten slowly.

    Here: of tokens by their positions.
    """

    def __init__(self, least_variance: float = 0.0) -> None:
        """Points whose abscissas vary no more than that say nothing of the slope."""
        self._least_variance = least_variance
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self.slope = 0.0
        """By how much the cost grows with each unit, as a share of what it is at 0."""

    def add(self, x: float, y: float) -> None:
        """One more point."""
        self._weight = _KEPT_LONG * self._weight + 1
        for name, value in (("_x", x), ("_y", y), ("_xx", x * x), ("_xy", x * y)):
            setattr(self, name, _KEPT_LONG * getattr(self, name) + value)
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x**2
        if variance <= self._least_variance or mean_y <= 0:
            return
        rise = max((self._xy / self._weight - mean_x * mean_y) / variance, 0.0)
        self.slope = rise / max(mean_y - rise * mean_x, _LEAST_SHARE * mean_y)


def units_of(tokens: int, position: int, slope: float) -> float:
    """What so many tokens from a position on cost, in first tokens."""
    return tokens + slope * tokens * (position + tokens / 2)


def _mean(known: float, new: float) -> float:
    return _KEPT * known + (1 - _KEPT) * new if known else new
