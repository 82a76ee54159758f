"""What a kind of question is: a table of facts, or one operation on numbers, with its wording.

`{x}` in a template is the subject of a fact and `{y}` its answer; `{a}` and `{b}` are the operands
of a sum. Held-out phrasings are never in the training text: only `evaluate.py` and the tests ask
them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ARTICLE: Final = re.compile(r"\b([Aa]) (?=[aeiou])")


def lines(text: str) -> tuple[str, ...]:
    """The lines of a block of text, without indentation."""
    return tuple(line.strip() for line in text.strip().splitlines())


def fill(template: str, subject: str, answer: str = "") -> str:
    """Put a fact into a template; mends "a owl" and the capital letter at the start."""
    text = template.replace("{x}", subject).replace("{y}", answer)
    text = _ARTICLE.sub(r"\1n ", text)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class FactKind:
    """One relation: its table, its wording, and what is kept back to measure generalisation."""

    name: str
    table: dict[str, str]
    statements: tuple[str, ...]  # the first one is the answer given to every question
    questions: tuple[str, ...]  # asked in training
    held_out: tuple[str, ...]  # never in the training text

    def answer(self, subject: str) -> str:
        """The full sentence that answers any question of this kind about `subject`."""
        return fill(self.statements[0], subject, self.table[subject])


@dataclass(frozen=True)
class SumKind:
    """One operation on small numbers. `{a}` and `{b}` are the operands, `{c}` the result."""

    name: str
    operator: str
    limit: int  # both operands are in 0..limit
    questions: tuple[str, ...]
    held_out: tuple[str, ...]

    def result(self, a: int, b: int) -> int:
        """The right answer."""
        return {"+": a + b, "-": a - b, "*": a * b}[self.operator]

    def pairs(self) -> list[tuple[int, int]]:
        """Every sum that is taught; differences never go below zero."""
        numbers = range(self.limit + 1)
        return [(a, b) for a in numbers for b in numbers if self.operator != "-" or b <= a]

    def answer(self, a: int, b: int) -> str:
        """The sentence that answers the question, for example `7 + 5 = 12`."""
        return f"{a} {self.operator} {b} = {self.result(a, b)}"

    def ask(self, template: str, a: int, b: int) -> str:
        """Put the operands into one of the phrasings."""
        return template.replace("{a}", str(a)).replace("{b}", str(b))
