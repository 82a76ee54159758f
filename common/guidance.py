"""Grammars where they are checked and where they are followed: the same costs, the same steps.

Read by the front ends, which refuse what is larger, and by the workers, which compile it again. So
a grammar that was accepted compiles. Loads nothing of llguidance: its objects are handed in.
"""

from typing import Protocol, TypedDict

MAX_GRAMMAR_BYTES = 256 * 1024
"""Of a grammar's text in UTF-8, as a client writes it."""


class ParserLimits(TypedDict):
    """Arguments of llguidance's ``LLParserLimits``. Beyond one of them the matcher fails."""

    max_items_in_row: int
    """Ways to read the text so far that are followed at the same time."""
    initial_lexer_fuel: int
    """Work to build the regular expressions, once per grammar: 50 thousand take about 1 ms."""
    step_lexer_fuel: int
    """Work of the regular expressions for one token's mask: 14 thousand take about 1 ms."""
    step_max_items: int
    """Parser items for one token's mask: 20 thousand take about 1 ms."""
    max_lexer_states: int
    """States of the regular expressions, for one sequence: 1 to 2 kB each."""
    max_grammar_size: int
    """Symbols in the grammar's productions."""
    precompute_large_lexemes: bool
    """Run large expressions over the whole vocabulary when compiling, and not in some step."""


def parser_limits() -> ParserLimits:
    """The limits of every grammar."""
    return ParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=30_000,
        max_grammar_size=500_000,
        precompute_large_lexemes=True,
    )


class Matcher(Protocol):
    """llguidance's ``LLMatcher``: a place in a grammar."""

    def validate_tokens(self, tokens: list[int], /) -> int:
        """How many of them may follow."""

    def compute_ff_bytes(self) -> bytes:
        """The text that has to follow."""


class Tokenizer(Protocol):
    """llguidance's ``LLTokenizer``."""

    def greedy_tokenize(self, text: str, /) -> list[int]:
        """The longest token first; special ones are no text."""


def spelled(matcher: Matcher, tokenizer: Tokenizer, token: int) -> int:
    """What to allow instead of ``token``, the only one that a mask allows: mostly itself.

    llguidance allows one token where the text is forced, and reads that text as the tokenizer does:
    "</s>" becomes the special token, which is no text and does not fit. So it has to be spelled.
    """
    if matcher.validate_tokens([token]):
        return token
    text = matcher.compute_ff_bytes().decode(errors="replace")
    first = tokenizer.greedy_tokenize(text)[:1]
    return first[0] if first and matcher.validate_tokens(first) else token
