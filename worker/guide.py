"""A sequence's place in its grammar.

Runs in the worker. The place is a function of the grammar and the generated ids: a continued
sequence replays them. Owns llguidance's matcher and what ends the sequence by it, a sentence or a
stop token. Knows nothing of how grammars are compiled, or of what else the sequence is.
"""

from collections.abc import Sequence

import llguidance
import numpy as np

from common.guidance import spelled
from worker.masks import ALL_BITS, Words

_REPLAYED = 256
"""PERF: replaying holds the interpreter's lock, 0.1 ms for so many tokens; the main thread may go
between two such pieces."""


class Guide:
    """A sequence's place in its grammar.

    Touched by one thread at a time: the compiling one until it is handed over, that of the masks
    from ``Guidance.begin`` until they are waited for, else the main one.
    """

    def __init__(
        self, owner: int, stop_ids: Sequence[int], tokenizer: llguidance.LLTokenizer
    ) -> None:
        self.owner = owner
        """The sequence's id."""
        self.error = ""
        """Why the sequence cannot go on: one sentence."""
        self._stop_ids = frozenset(stop_ids)
        self._tokenizer = tokenizer
        self._ends = [_bit(token) for token in {tokenizer.eos_token, *stop_ids}]
        self._stops = [_bit(token) for token in self._stop_ids]
        self._matcher: llguidance.LLMatcher | None = None
        self._begun = False
        self._ended = False

    @property
    def matcher(self) -> llguidance.LLMatcher:
        """There since it was handed over without an error."""
        assert self._matcher is not None
        return self._matcher

    @property
    def over(self) -> bool:
        """Nothing can follow, and there is no stop token to say so."""
        if self._stop_ids or self.error:
            return False
        return self._ended or (self._begun and self.matcher.is_stopped())

    def start(self, matcher: llguidance.LLMatcher, generated_ids: Sequence[int]) -> None:
        """Go to where the sequence is."""
        self._matcher = matcher
        self._begun = bool(generated_ids)
        for first in range(0, len(generated_ids), _REPLAYED):
            if not matcher.consume_tokens(list(generated_ids[first : first + _REPLAYED])):
                self.error = "the tokens generated so far do not match the grammar"
                return

    def take(self, token: int) -> bool:
        """Go on by one token. False if that is impossible: it is over, or ``error`` says why."""
        if self.error or self._ended:
            return False
        self._begun = True
        if token in self._stop_ids or self.matcher.consume_token(token):
            return True
        self.error = "a token was generated that the grammar does not allow"
        return False

    def settle(self, allowed: Words) -> None:
        """Stop tokens where the grammar may end and nowhere else.

        A row that has failed or ended is left unmasked: it goes through the sampler like others.
        """
        if np.count_nonzero(allowed) == 1:
            self._settle_forced(allowed)
        accepting = self.matcher.is_accepting()
        for word, bit in self._ends:
            allowed[word] &= ~bit
        if accepting:
            for word, bit in self._stops:
                allowed[word] |= bit
        if self.matcher.is_error():
            self.error = "the grammar became too complex to follow"
        elif allowed.any():
            return
        elif not accepting:
            self.error = "the grammar allows none of the model's tokens here"
        elif not self._begun:
            self.error = "the grammar allows nothing but the empty text"
        else:
            self._ended = True
        allowed.fill(ALL_BITS)

    def _settle_forced(self, allowed: Words) -> None:
        """``allowed`` has bits in one word. If it is one bit, its token must be one that fits."""
        word = int(np.argmax(allowed))
        bits = int(allowed[word])
        if bits & (bits - 1):
            return
        token = spelled(self.matcher, self._tokenizer, 32 * word + bits.bit_length() - 1)
        allowed[word] = 0
        word, bit = _bit(token)
        allowed[word] = bit


def _bit(token: int) -> tuple[int, np.uint32]:
    """Where a token is in a mask: the word, and the bit in it."""
    return token // 32, np.uint32(1 << token % 32)
