"""What is asked: lengths of prompts and answers, and the prompts themselves.

The profiles are those of huggingface's inference-benchmarker (lengths of its ``src/profiles.rs``),
with words drawn at random in the place of its data sets, so that nothing has to be downloaded and
the same seed gives every server the same work.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

WORDS = (
    *("import", "self", "return", "value", "class", "model", "token", "queue", "batch", "stream"),
    *("worker", "request", "server", "python", "code", "data", "list", "dict", "set", "name"),
)
_TOGETHER = 32
"""Conversations that take turns."""


@dataclass(frozen=True)
class Length:
    """Of a text, in tokens: normally distributed and clipped."""

    mean: int
    least: int
    most: int
    deviation: float

    @staticmethod
    def exactly(tokens: int) -> "Length":
        """Always the same."""
        return Length(tokens, tokens, tokens, 0)

    def draw(self, rng: random.Random) -> int:
        """One length."""
        return min(self.most, max(self.least, round(rng.gauss(self.mean, self.deviation))))


@dataclass(frozen=True)
class Work:
    """One request. ``turns``: what the user said, what was answered, …, what the user says now."""

    turns: tuple[str, ...]
    max_tokens: int

    @property
    def text(self) -> str:
        """For interfaces without messages."""
        if len(self.turns) == 1:
            return self.turns[0]
        speakers = ("User", "Assistant")
        lines = [f"{speakers[number % 2]}: {turn}" for number, turn in enumerate(self.turns)]
        return "\n".join([*lines, "Assistant:"])


@dataclass(frozen=True)
class Ruler:
    """How many words make so many tokens, as measured on the server."""

    words_per_token: float = 1.0
    overhead_tokens: float = 0.0
    """What a prompt without words already has: a chat template, a first token."""

    def words(self, tokens: int) -> int:
        """At least one."""
        return max(1, round((tokens - self.overhead_tokens) * self.words_per_token))


@dataclass(frozen=True)
class Scenario:
    """A kind of traffic."""

    name: str
    meaning: str
    prompt: Length
    """Of what is new in a request."""
    output: Length
    shared: Length | None = None
    """Of a beginning that many requests have in common."""
    documents: int = 1
    """How many such beginnings there are."""
    turns: int = 1
    """Questions of a conversation; each is sent with everything that was said before."""

    def adapted(self, prompt: int | None, output: int | None, shared: int | None) -> "Scenario":
        """With lengths of the user's own where they are given."""
        changes = {"prompt": prompt, "output": output, "shared": shared}
        given = {name: Length.exactly(n) for name, n in changes.items() if n is not None}
        return replace(self, **given)  # type: ignore[arg-type] # fields of that type


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("chat", "conversations of 4 turns, sent with their history, up to 4000 tokens",
                 Length(60, 10, 200, 40), Length(800, 50, 800, 100), turns=4),
        Scenario("code", "completion of files of 3000 to 6000 tokens by a few lines",
                 Length(4096, 3000, 6000, 1000), Length(50, 30, 80, 10)),
        Scenario("classification", "short questions about one of 8 documents, up to 12000 tokens",
                 Length(40, 10, 80, 20), Length(50, 30, 80, 10),
                 shared=Length(10000, 8000, 12000, 5000), documents=8),
        Scenario("fixed", "200 tokens in, up to 800 out",
                 Length.exactly(200), Length(800, 50, 800, 100)),
        Scenario("shared-prefix", "one instruction of 1024 tokens before every question",
                 Length.exactly(128), Length.exactly(128), shared=Length.exactly(1024)),
    )
}  # fmt: skip


def draw(scenario: Scenario, count: int, seed: int, ruler: Ruler) -> list[Work]:
    """``count`` requests, in the order in which they are to be sent."""
    return list(islice(_endless(scenario, random.Random(seed), ruler), count))  # noqa: S311


def _endless(scenario: Scenario, rng: random.Random, ruler: Ruler) -> Iterator[Work]:
    beginnings = [""]
    if scenario.shared is not None:
        lengths = [ruler.words(scenario.shared.draw(rng)) for _ in range(scenario.documents)]
        beginnings = [" ".join(rng.choices(WORDS, k=length)) + " " for length in lengths]
    plain = replace(ruler, overhead_tokens=0.0) if scenario.shared else ruler

    def say(length: Length) -> str:
        return " ".join(rng.choices(WORDS, k=plain.words(length.draw(rng))))

    together = _TOGETHER if scenario.turns > 1 else 1
    while True:
        talks = [[rng.choice(beginnings) + say(scenario.prompt)] for _ in range(together)]
        for turn in range(scenario.turns):
            for talk in talks:
                if turn:
                    talk += [say(scenario.output), say(scenario.prompt)]
                yield Work(tuple(talk), scenario.output.draw(rng))
