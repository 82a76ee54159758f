"""The questions that measure the built-in model, and how an answer is judged.

Built from the held-out phrasings, so none of them is in the training text. No torch here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tools.builtin_model import objects
from tools.builtin_model.chat import ASSISTANT, BOS, EOS, render, user
from tools.builtin_model.kinds import fill
from tools.builtin_model.phrasings import FACT_KINDS
from tools.builtin_model.places import CAPITAL
from tools.builtin_model.sums import SUM_KINDS
from tools.builtin_model.tooltalk import tool_dialogue

Form = Literal["plain", "chat"]
FORMS: Final[tuple[Form, ...]] = ("plain", "chat")
_OBJECTS_SEED: Final = 1_000_003  # far from any training seed
_CONTEXT_SENTENCES: Final = 24  # about 250 tokens


@dataclass(frozen=True)
class Question:
    """One prompt with its special tokens written out, and what its answer must contain."""

    kind: str
    prompt: str
    expected: str
    exact: bool = False  # the answer must be equal as JSON; otherwise the words must appear

    def is_right(self, answer: str) -> bool:
        """Judge the generated text, without special tokens."""
        if self.exact:
            try:
                return bool(json.loads(answer) == json.loads(self.expected))
            except ValueError:
                return False
        return re.search(rf"(?<!\w){re.escape(self.expected)}(?!\w)", answer) is not None


def put(form: Form, question: str) -> str:
    """The prompt of a question as plain text or as a chat."""
    if form == "plain":
        return BOS + question
    return render([user(question)], add_generation_prompt=True)


def held_out_facts(form: Form) -> list[Question]:
    """Every taught fact in every held-out phrasing."""
    return [
        Question(kind.name, put(form, fill(template, subject)), answer)
        for kind in FACT_KINDS
        for template in kind.held_out
        for subject, answer in kind.table.items()
    ]


def held_out_sums(form: Form) -> list[Question]:
    """Every taught sum in every held-out phrasing; the whole line must be right."""
    return [
        Question(kind.name, put(form, kind.ask(template, a, b)), kind.answer(a, b))
        for kind in SUM_KINDS
        for template in kind.held_out
        for a, b in kind.pairs()
    ]


def after_long_text(form: Form) -> list[Question]:
    """The capitals once more, in a held-out phrasing, after a few hundred tokens of other facts."""
    rng = Random(_OBJECTS_SEED)
    questions = []
    for subject, answer in CAPITAL.table.items():
        before = []
        for _ in range(_CONTEXT_SENTENCES):
            kind = rng.choice([k for k in FACT_KINDS if k.table is not CAPITAL.table])
            before.append(kind.answer(rng.choice(list(kind.table))))
        asked = fill(CAPITAL.held_out[0], subject)
        prompt = put(form, f"{' '.join(before)}\n\n{asked}")
        questions.append(Question("after_long_text", prompt, answer))
    return questions


def new_objects(count: int = 100) -> list[Question]:
    """JSON objects about people; the wording is taught, the combinations are new."""
    rng = Random(_OBJECTS_SEED)
    pairs = (objects.person(rng) for _ in range(count))
    return [Question("json", put("chat", asked), answer, exact=True) for asked, answer in pairs]


def new_calls(count: int = 100) -> list[Question]:
    """Tool calls, with tool lists that are new in their combination."""
    rng = Random(_OBJECTS_SEED)
    questions: list[Question] = []
    while len(questions) < count:
        text = tool_dialogue(rng, "Hello", "Hello! How can I help you?")
        prompt, _, rest = text.partition(ASSISTANT)
        answer = rest.partition(EOS)[0]
        if answer.startswith("{"):
            questions.append(Question("tools", prompt + ASSISTANT, answer, exact=True))
    return questions
