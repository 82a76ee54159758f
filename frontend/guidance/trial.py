"""Tries one grammar: compiles it and takes its first steps, as a worker will. In the checker only.

What it costs is bounded by llguidance's own limits, the workers' as well, and by those of the
process that this runs in (``checker.py``).
"""

import re
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from common.guidance import MAX_GRAMMAR_BYTES, parser_limits, spelled
from frontend.guidance.compile import answer_alone, compile_grammar
from frontend.guidance.frames import Verdict
from frontend.guidance.source import GrammarSource

STEPS = 16
"""Tokens that are tried."""
MAX_STEP_S = 0.03
"""CPU time per token, on average of those tried: a worker computes masks between all its steps."""
_MAX_ERROR_CHARACTERS = 300
_NOTHING = "no text can match it"
_QUOTED = re.compile(r"\n\s*\d+ \| ")
_PLACE_OF_SCHEMA = re.compile(r"^at \d+\(\d+\): (?=failed to compile JSON schema)")


def try_grammar(source: GrammarSource, tokenizer: LLTokenizer) -> Verdict:
    """Whether the grammar can be followed."""
    try:
        text = compile_grammar(source)
        # What follows after free text would not be reached by the first steps.
        texts = [text, answer_alone(text)] if source.kind == "framed" else [text]
    except ValueError as wrong:
        return refusal(_readable(str(wrong)))
    if len(text.encode()) > MAX_GRAMMAR_BYTES:
        return refusal(f"it must be at most {MAX_GRAMMAR_BYTES} bytes long when compiled")
    limits = LLParserLimits(**parser_limits(), verbose_errors=False)
    for tried in texts:
        error = _walk(LLMatcher(tokenizer, tried, log_level=0, limits=limits), tokenizer)
        if error:
            return refusal(error)
    return Verdict(grammar=text)


def refusal(error: str, *, exhausted: bool = False) -> Verdict:
    """A verdict in words that may follow others."""
    return Verdict(error=error, exhausted=exhausted)


def _walk(matcher: LLMatcher, tokenizer: LLTokenizer) -> str:
    """What goes wrong at the start or within the first tokens."""
    began = time.process_time()
    steps = 0
    while steps < STEPS and not matcher.is_stopped():
        token = _next_token(matcher, tokenizer)
        if token is None or not matcher.consume_token(token):
            break
        steps += 1
    if matcher.is_error():
        return _readable(matcher.get_error())
    if steps == 0 and not matcher.is_accepting():
        return _NOTHING
    if time.process_time() - began > MAX_STEP_S * max(steps, 1):
        return "each token would take too long"
    return ""


def _next_token(matcher: LLMatcher, tokenizer: LLTokenizer) -> int | None:
    """A token that may come next: the forced one, else the lowest."""
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    if matcher.is_error() or not mask:
        return None
    lowest = (mask & -mask).bit_length() - 1
    return lowest if mask & (mask - 1) else spelled(matcher, tokenizer, lowest)


def _readable(error: str) -> str:
    """One line of llguidance's words, without the lines of the grammar that it quotes.

    Where a schema is wrong, neither is the place told: the grammar around it is ours.
    """
    if error.startswith("NoExtension"):
        return _NOTHING
    said = _QUOTED.split(error.replace("<non-verbose/>", ""), maxsplit=1)[0]
    line = _PLACE_OF_SCHEMA.sub("", re.sub(r"\s+", " ", said).strip())
    return line if len(line) <= _MAX_ERROR_CHARACTERS else line[:_MAX_ERROR_CHARACTERS] + "…"
