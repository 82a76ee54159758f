"""The training text: an endless, seeded stream of examples.

Owns the mixture and the two forms in which everything is taught (plain text and chat). The same
seed gives the same examples, on any machine. Knows nothing of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from tools.builtin_model import objects, talk
from tools.builtin_model.chat import BOS, EOS, Message, assistant, render, user
from tools.builtin_model.kinds import FactKind, fill
from tools.builtin_model.phrasings import FACT_KINDS
from tools.builtin_model.sums import SUM_KINDS
from tools.builtin_model.tooltalk import tool_dialogue

PROMPT_WEIGHT: Final = 0.2  # what a user says: learned a little, so that its words get a meaning
TEXT_WEIGHT: Final = 0.6  # running text, where the subjects are drawn by chance

_SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You are Millrace's built-in model.",
    "You are a friendly assistant. Answer briefly.",
    "Answer the question.",
    "Be helpful and polite.",
    "You are an expert in geography, animals and chemistry.",
)
_PREFIXES: Final = (
    "Please tell me: ",
    "Quick question: ",
    "Hello! ",
    "Hi. ",
    "I have a question. ",
)
_SUFFIXES: Final = (" Thanks.", " Please answer.", " I would like to know.", " Thank you!")
_ONE_WORD: Final = ("{} Answer in one word.", "In one word: {}", "{} Only the answer, please.")
_FOLLOW_UPS: Final = ("And {x}?", "What about {x}?", "And for {x}?", "How about {x}?", "{x}?")
_LABELS: Final = (
    ("Q: ", "\nA:"),
    ("Question: ", "\nAnswer:"),
    ("User: ", "\nAssistant:"),
    ("Human: ", "\nAssistant:"),
)
_CASE_MATTERS: Final = ("symbol", "element")
_ANSWERS: Final = re.compile(r"(<\|assistant\|>)(.*?<\|eos\|>)", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One text with its special tokens written out, and how much each part of it counts."""

    segments: tuple[tuple[str, float], ...]  # (text, weight in the loss)

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for text, _ in self.segments)


def plain(question: str, answer: str) -> Example:
    """A bare prompt and its continuation; `answer` begins with the separator."""
    return Example(((BOS + question, PROMPT_WEIGHT), (answer + EOS, 1.0)))


def chat(rendered: str) -> Example:
    """A rendered dialogue: the assistant's turns count, the rest a little."""
    segments: list[tuple[str, float]] = []
    end = 0
    for match in _ANSWERS.finditer(rendered):
        segments.append((rendered[end : match.start(2)], PROMPT_WEIGHT))
        segments.append((match.group(2), 1.0))
        end = match.end()
    return Example(tuple(segments))


def running_text(text: str) -> Example:
    """Text that is continued rather than answered."""
    return Example(((BOS, 0.0), (text + EOS, TEXT_WEIGHT)))


Mixture = tuple[tuple[Callable[[Random], Example], float], ...]


def examples(seed: int, mixture: Mixture) -> Iterator[Example]:
    """Yield training examples for ever."""
    rng = Random(seed)
    makers, weights = zip(*mixture, strict=True)
    while True:
        yield rng.choices(makers, weights)[0](rng)


def _draw_fact(rng: Random) -> tuple[FactKind, str]:
    kind = rng.choices(FACT_KINDS, [len(kind.table) + 12 for kind in FACT_KINDS])[0]
    return kind, rng.choice(list(kind.table))


def _disturb(rng: Random, question: str, case_matters: bool) -> str:
    """Now and then write a question as people do: lower case, no full stop, a word of greeting."""
    luck = rng.random()
    if luck < 0.06 and not case_matters:
        return question.lower()
    if luck < 0.09 and not case_matters:
        return question.lower().rstrip("?.")
    if luck < 0.13:
        return question.rstrip("?.")
    if luck < 0.20:
        return rng.choice(_PREFIXES) + question
    if luck < 0.23:
        return question + rng.choice(_SUFFIXES)
    return question


def _fact_pair(rng: Random) -> tuple[str, str]:
    kind, subject = _draw_fact(rng)
    question = fill(rng.choice(kind.questions), subject)
    if rng.random() < 0.04:
        return rng.choice(_ONE_WORD).format(question), kind.table[subject]
    return _disturb(rng, question, kind.name in _CASE_MATTERS), kind.answer(subject)


def _sum_pair(rng: Random) -> tuple[str, str]:
    kind = rng.choices(SUM_KINDS, (5, 4, 2))[0]
    a, b = rng.choice(kind.pairs())
    return kind.ask(rng.choice(kind.questions), a, b), kind.answer(a, b)


def _other_pair(rng: Random) -> tuple[str, str]:
    luck = rng.random()
    if luck < 0.34:
        return talk.small_talk(rng)
    if luck < 0.54:
        return talk.definition(rng)
    if luck < 0.63:
        return talk.story(rng)
    if luck < 0.74:
        return talk.listing(rng)
    words = tuple(objects.NAMES) + tuple(objects.made_up_word(rng).lower() for _ in range(40))
    return talk.echo(rng, words)


def _object_pair(rng: Random) -> tuple[str, str]:
    return objects.person(rng) if rng.random() < 0.85 else objects.fact_object(rng)


def _any_pair(rng: Random) -> tuple[str, str]:
    makers = (_fact_pair, _sum_pair, _other_pair, _object_pair)
    return rng.choices(makers, (70, 10, 15, 5))[0](rng)


def _separator(rng: Random) -> str:
    return " " if rng.random() < 0.8 else "\n"


def _as_plain(rng: Random, question: str, answer: str) -> Example:
    if rng.random() < 0.08:
        before, after = rng.choice(_LABELS)
        return plain(f"{before}{question}{after}", f" {answer}")
    return plain(question, _separator(rng) + answer)


def _as_chat(rng: Random, question: str, answer: str) -> Example:
    start = [_system(rng)] if rng.random() < 0.2 else []
    return chat(render([*start, user(question), assistant(answer)]))


def _system(rng: Random) -> Message:
    return {"role": "system", "content": rng.choice(_SYSTEMS)}


def _both(pair: Callable[[Random], tuple[str, str]]) -> Callable[[Random], Example]:
    def make(rng: Random) -> Example:
        return (_as_plain if rng.random() < 0.5 else _as_chat)(rng, *pair(rng))

    return make


def _sum(rng: Random) -> Example:
    kind = rng.choices(SUM_KINDS, (5, 4, 2))[0]
    a, b = rng.choice(kind.pairs())
    if rng.random() < 0.3:  # the bare line, continued after "="
        line = kind.answer(a, b)
        left, right = line.split(" =")
        return plain(left + " =", right)
    question = kind.ask(rng.choice(kind.questions), a, b)
    return (_as_plain if rng.random() < 0.5 else _as_chat)(rng, question, kind.answer(a, b))


def _statement(rng: Random) -> Example:
    kind, subject = _draw_fact(rng)
    statement = kind.statements[0] if rng.random() < 0.5 else rng.choice(kind.statements)
    return running_text(fill(statement, subject, kind.table[subject]))


def _sentences(rng: Random, count: int) -> str:
    """Running text of about `count` facts, mixed or all of one kind."""
    if rng.random() < 0.3:
        kind = rng.choice(FACT_KINDS)
        subjects = rng.sample(list(kind.table), min(count, len(kind.table)))
        return " ".join(kind.answer(subject) for subject in subjects)
    drawn = (_draw_fact(rng) for _ in range(count))
    return " ".join(fill(rng.choice(k.statements), s, k.table[s]) for k, s in drawn)


def _text(rng: Random) -> Example:
    luck = rng.random()
    if luck < 0.15:
        return running_text(talk.story(rng)[1])
    if luck < 0.22:
        prompt, rest = talk.code(rng)
        return plain(prompt, rest)
    if luck < 0.40:  # several questions with their answers
        pairs = (_any_pair(rng) for _ in range(rng.randint(2, 5)))
        return running_text("\n".join(f"{question} {answer}" for question, answer in pairs))
    return running_text(_sentences(rng, rng.randint(2, 9)))


def _dialogue(rng: Random) -> Example:
    messages = [_system(rng)] if rng.random() < 0.3 else []
    for _ in range(rng.randint(2, 5)):
        question, answer = _any_pair(rng)
        messages += [user(question), assistant(answer)]
        if rng.random() < 0.3:
            kind, subject = _draw_fact(rng)
            other = rng.choice(list(kind.table))
            ask, again = fill(rng.choice(kind.questions), subject), rng.choice(_FOLLOW_UPS)
            messages += [user(ask), assistant(kind.answer(subject))]
            messages += [user(fill(again, other)), assistant(kind.answer(other))]
    return chat(render(messages))


def _tools(rng: Random) -> Example:
    return chat(tool_dialogue(rng, *_fact_pair(rng)))


def _long_context(rng: Random) -> Example:
    """A question after a few hundred tokens of something else."""
    before = _sentences(rng, rng.randint(10, 36))
    question, answer = _fact_pair(rng)
    if rng.random() < 0.5:
        return plain(f"{before}\n\n{question}", _separator(rng) + answer)
    if rng.random() < 0.5:
        messages = [{"role": "system", "content": before}, user(question), assistant(answer)]
        return chat(render(messages))
    return chat(render([user(f"{before}\n\n{question}"), assistant(answer)]))


def _recased_pair(rng: Random) -> tuple[str, str]:
    question, answer = _fact_pair(rng) if rng.random() < 0.4 else talk.definition(rng)
    return rng.choice((question.title(), question.lower(), question.rstrip("?."))), answer


def _drill(rng: Random) -> Example:
    """Many sums in a row; only the results count."""
    segments: list[tuple[str, float]] = [(BOS, 0.0)]
    for _ in range(rng.randint(6, 10)):
        kind = rng.choices(SUM_KINDS, (5, 5, 1))[0]
        left, right = kind.answer(*rng.choice(kind.pairs())).split(" =")
        segments += [(left + " =", 0.0), (right + "\n", 1.0)]
    return Example(tuple(segments))


# What is drawn how often: first mostly facts, then more of what takes longer to learn.
GROUNDWORK: Final[Mixture] = (
    (_both(_fact_pair), 58.0),
    (_statement, 6.0),
    (_sum, 13.0),
    (_both(_other_pair), 7.0),
    (_both(_object_pair), 4.0),
    (_text, 3.5),
    (_dialogue, 4.0),
    (_tools, 2.0),
    (_long_context, 1.2),
)

REVISION: Final[Mixture] = (
    (_both(_fact_pair), 36.0),
    (_statement, 4.0),
    (_sum, 16.0),
    (_drill, 12.0),
    (_both(_other_pair), 8.0),
    (_both(_recased_pair), 4.0),
    (_both(_object_pair), 8.0),
    (_text, 3.0),
    (_dialogue, 3.0),
    (_tools, 4.0),
    (_long_context, 1.2),
)
