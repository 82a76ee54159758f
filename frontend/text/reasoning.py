"""Reasoning in text: what a model writes to itself before its answer; runs in front ends.

Owns the tags that models put around it, and the reader that takes it out of the text. What comes
after it is another reader's; knows nothing of tool calls, tokens beyond ids, or events.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from frontend.text.deltas import Delta, Reader, Reasoning

_MOST_BLANK = 256
"""Blanks before the start tag; after more of them it is no start."""


class ReasoningTags(NamedTuple):
    """What stands before and after reasoning."""

    start: str
    end: str


KNOWN_TAGS = (
    ReasoningTags("<think>", "</think>"),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningTags("[THINK]", "[/THINK]"),
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
)
"""The more particular to reasoning models first."""


def detect_reasoning(template_source: str) -> ReasoningTags | None:
    """The tags that a chat template writes or cuts out; None if it knows none."""
    return next(
        (
            tags
            for tags in KNOWN_TAGS
            if tags.start in template_source or tags.end in template_source
        ),
        None,
    )


def is_open(prompt: str, tags: ReasoningTags, begun: str = "") -> bool:
    """Whether the prompt has begun the reasoning already; ``begun``: a message to be continued."""
    inside = begun.lstrip().startswith(tags.start) and tags.end not in begun
    return inside or prompt.rstrip().endswith(tags.start)


def reasoning_rules(tags: ReasoningTags, token_id: Callable[[str], int | None]) -> str:
    """Lark rules: ``reasoning`` is one section of it at the beginning of an answer."""
    start, end = token_id(tags.start), token_id(tags.end)
    opening = f'"{tags.start}"' if start is None else f"<[{start}]>"
    closing = re.escape(tags.end).replace("/", "\\/")
    if end is None:
        thoughts = f"thoughts[lazy]: /(?s:.*){closing}/"
    else:
        thoughts = f"thoughts: THOUGHTS <[{end}]>\nTHOUGHTS: /(?s:.*)/ & ~/(?s:.*){closing}(?s:.*)/"
    return f"reasoning: {opening} thoughts /\\n*/\n{thoughts}"


class ReasoningReader:
    """Splits reasoning off the beginning of an answer; the rest goes to the inner reader.

    ``opened``: the prompt has opened the section; a model that opens it again means the same one.
    """

    def __init__(self, inner: Reader, start_tag: str, end_tag: str, *, opened: bool) -> None:
        self._inner = inner
        self._start_tag = start_tag
        self._end_tag = end_tag
        self._open = opened
        self._held = ""
        self._state: Callable[[str, bool], list[Delta]] = self._before

    def push(self, text: str) -> list[Delta]:
        """What is certain now."""
        held, self._held = self._held, ""
        return self._state(held + text, False)

    def finish(self) -> list[Delta]:
        """The rest: a section that was not closed is reasoning to the end."""
        held, self._held = self._held, ""
        return [*self._state(held, True), *self._inner.finish()]

    # --- states: what is not yet certain is held ------------------------------------------------

    def _before(self, text: str, last: bool) -> list[Delta]:
        begun = text.lstrip()
        blank = len(text) - len(begun)
        if begun.startswith(self._start_tag) and blank <= _MOST_BLANK:
            return self._go(self._inside, begun[len(self._start_tag) :], last)
        if self._start_tag.startswith(begun) and blank <= _MOST_BLANK and not last:
            self._held = text
            return []
        return self._go(self._inside if self._open else self._after, text, last)

    def _inside(self, text: str, last: bool) -> list[Delta]:
        found = text.find(self._end_tag)
        if found >= 0:
            rest = text[found + len(self._end_tag) :]
            return [*_reasoning(text[:found]), *self._go(self._gap, rest, last)]
        if not last:
            certain = len(text) - _beginning(text, self._end_tag)
            text, self._held = text[:certain], text[certain:]
        return _reasoning(text)

    def _gap(self, text: str, last: bool) -> list[Delta]:
        """The newlines between the tag and the answer belong to neither."""
        text = text.lstrip("\n")
        return self._go(self._after, text, last) if text else []

    def _after(self, text: str, last: bool) -> list[Delta]:
        return self._inner.push(text) if text else []

    def _go(self, state: Callable[[str, bool], list[Delta]], text: str, last: bool) -> list[Delta]:
        self._state = state
        return state(text, last)


def _reasoning(text: str) -> list[Delta]:
    return [Reasoning(text)] if text else []


def _beginning(text: str, tag: str) -> int:
    """How many of the last characters may be the beginning of a tag."""
    most = min(len(tag) - 1, len(text))
    return next((n for n in range(most, 0, -1) if text.endswith(tag[:n])), 0)
