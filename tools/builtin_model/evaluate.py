"""Measures the built-in model: greedy answers to questions it has not seen in this wording.

`python -m tools.builtin_model.evaluate --folder common/models/builtin` prints the numbers;
`card.py` writes them down.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tools.builtin_model import questions as ask
from tools.builtin_model.chat import EOS, PAD, SPECIAL_TOKENS
from tools.builtin_model.questions import FORMS, Form, Question

SAMPLE_EVERY: Final = 7  # the tests ask every seventh held-out question
_BATCH: Final = 128
_EOS_ID: Final = SPECIAL_TOKENS.index(EOS)
_PAD_ID: Final = SPECIAL_TOKENS.index(PAD)


@dataclass
class Score:
    """Right answers of one set of questions."""

    right: int = 0
    asked: int = 0
    wrong: list[tuple[Question, str]] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Share of right answers, rounded as the card states it."""
        return round(self.right / self.asked, 4)

    def add(self, question: Question, answer: str) -> None:
        """Judge one answer."""
        self.asked += 1
        if question.is_right(answer):
            self.right += 1
        else:
            self.wrong.append((question, answer))


class Subject:
    """The model under test: greedy answers, prompts of equal length together, so no padding."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.train(False)

    def answers(self, prompts: Sequence[str], max_new_tokens: int = 24) -> list[str]:
        """Continue prompts whose special tokens are written out; up to the first EOS."""
        ids = [e.ids for e in self.tokenizer.encode_batch(list(prompts), add_special_tokens=False)]
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(ids):
            by_length[len(prompt)].append(index)
        texts = [""] * len(ids)
        for indices in by_length.values():
            for start in range(0, len(indices), _BATCH):
                chosen = indices[start : start + _BATCH]
                for index, new in zip(chosen, self._greedy([ids[i] for i in chosen], max_new_tokens), strict=True):  # noqa: E501  # fmt: skip
                    texts[index] = self.tokenizer.decode(new)
        return texts

    @torch.inference_mode()
    def _greedy(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        batch = torch.tensor(prompts)  # [batch, length]
        output = self.model.generate(  # type: ignore[misc]
            batch,
            attention_mask=torch.ones_like(batch),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=_EOS_ID,
            pad_token_id=_PAD_ID,
        )
        news: list[list[int]] = output[:, batch.shape[1] :].tolist()
        return [new[: new.index(_EOS_ID)] if _EOS_ID in new else new for new in news]

    def score(self, asked: Sequence[Question], max_new_tokens: int = 24) -> dict[str, Score]:
        """Scores by kind of question, and for all of them under "all"."""
        scores: dict[str, Score] = defaultdict(Score)
        answers = self.answers([question.prompt for question in asked], max_new_tokens)
        for question, answer in zip(asked, answers, strict=True):
            scores[question.kind].add(question, answer)
            scores["all"].add(question, answer)
        return dict(scores)


def sample(form: Form) -> list[Question]:
    """The fixed part of the held-out questions that the tests ask."""
    return ask.held_out_facts(form)[::SAMPLE_EVERY]


def measure(folder: Path, verbose: bool = False) -> dict[str, dict[str, float]]:
    """All numbers of the card: group of questions -> kind -> accuracy."""
    subject = Subject(folder)
    groups: list[tuple[str, list[Question], int]] = []
    for form in FORMS:
        groups.append((f"held_out_{form}", ask.held_out_facts(form), 24))
        groups.append((f"held_out_{form}_sample", sample(form), 24))
        groups.append((f"sums_{form}", ask.held_out_sums(form), 16))
        groups.append((f"long_{form}", ask.after_long_text(form), 24))
    groups.append(("objects", ask.new_objects(), 80))
    groups.append(("calls", ask.new_calls(), 80))
    numbers = {}
    for name, asked, max_new_tokens in groups:
        scores = subject.score(asked, max_new_tokens)
        numbers[name] = {kind: score.accuracy for kind, score in scores.items()}
        print(name, len(asked), numbers[name])
        if verbose:
            for question, answer in scores["all"].wrong[:40]:
                print(f"   {question.prompt[-70:]!r} -> {answer!r}, not {question.expected!r}")
    return numbers


def main() -> None:
    """Parse the command line and measure one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--verbose", action="store_true", help="print wrong answers")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(options.folder, options.verbose)


if __name__ == "__main__":
    main()
