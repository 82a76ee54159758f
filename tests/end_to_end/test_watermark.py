"""A text with a watermark is found by the public detector, and others are not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import WatermarkDetector

from tests.end_to_end.harness import Server, running, together
from tests.end_to_end.reference import Reference

PROMPTS = [f"Tell me {what}." for what in ("a story", "about Rome", "a joke", "about the sea")]
TOKENS = 200
ASKED: dict[str, Any] = {
    "max_new_tokens": TOKENS, "details": True, "do_sample": True, "temperature": 1.5,
}  # fmt: skip
STREAM = "/generate_stream"


@pytest.fixture(scope="module")
def other() -> Iterator[Server]:
    """With another rule, two shards, and drafts."""
    yield from running(
        "--num-shard", "2", "--dtype", "float32", "--speculate", "3", "--watermark-gamma", "0.25",
        env={"WATERMARK_DELTA": "4"},
    )  # fmt: skip


def score(reference: Reference, ids: list[int], *, gamma: float = 0.5) -> float:
    """Standard deviations by which green tokens are more than there are without a watermark."""
    rule = {"greenlist_ratio": gamma, "bias": 2.0, "hashing_key": 15485863, "context_width": 1}
    rule |= {"seeding_scheme": "lefthash"}
    detector = WatermarkDetector(
        reference.model.config, "cpu", rule, ignore_repeated_ngrams=True, max_cache_size=4096
    )
    return float(detector(torch.tensor([ids]), return_dict=True).z_score[0])


def told(server: Server, number: int, **parameters: Any) -> list[int]:
    """The ids of one text, streamed for every other number."""
    prompt = PROMPTS[number % len(PROMPTS)]
    asked = {**ASKED, "seed": number, **parameters}
    if number % 2:
        answer = server.post(STREAM, {"inputs": prompt, "parameters": asked})
        return [event["token"]["id"] for event in answer.events()]
    return [token["id"] for token in server.generate(prompt, **asked)["details"]["tokens"]]


def test_marked_texts_are_told_from_others(server: Server, reference: Reference) -> None:
    """Side by side in the same batch."""
    texts = together(8, lambda i: told(server, i // 2, watermark=i % 2 == 0))
    scores = [score(reference, ids) for ids in texts]
    assert min(scores[::2]) > 4
    assert max(scores[1::2]) < 3


def test_one_seed_gives_the_same_text_again(server: Server) -> None:
    ids = told(server, 1, watermark=True)
    assert told(server, 1, watermark=True) == ids
    assert told(server, 1) != ids


def test_greedy_with_penalties_and_beside_a_grammar(server: Server, reference: Reference) -> None:
    plain = {"do_sample": False, "temperature": None, "repetition_penalty": 1.3}
    grammar = {"type": "regex", "value": "[a-z ]{400}"}
    texts = together(2, lambda i: told(server, 0, watermark=bool(i), **plain))
    assert score(reference, texts[1]) > 4 > 3 > score(reference, texts[0])
    guided = told(server, 0, watermark=True, grammar=grammar)
    assert score(reference, guided) > 4


def test_another_rule_in_shards_with_drafts(other: Server, reference: Reference) -> None:
    """The share is what a detector has to know; the texts do not depend on drafts."""
    texts = together(4, lambda i: told(other, i, watermark=True))
    assert min(score(reference, ids, gamma=0.25) for ids in texts) > 4
    assert told(other, 2, watermark=True) == texts[2]
    repeated = {"do_sample": False, "temperature": None, "max_new_tokens": TOKENS}
    told(other, 0, watermark=True, **repeated)
    assert other.metrics()["millrace_drafted_tokens_total"] > 0
