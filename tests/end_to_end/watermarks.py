"""Texts with a watermark and without, and the public detector's score of them.

The built-in model is sure of most of what it says, and says little: so it is heated, and several
answers make one text.
"""

from typing import Any

import torch
from transformers import WatermarkDetector

from tests.end_to_end.harness import Server
from tests.end_to_end.reference import Reference

PROMPTS = ["Tell me a story.", "xq zu", "Once upon a time there was a", "The sea", "a b c d e"]
HEATED: dict[str, Any] = {"do_sample": True, "temperature": 2.0}


def score(reference: Reference, ids: list[int], *, gamma: float = 0.5) -> float:
    """Standard deviations by which there are more green tokens than without a watermark."""
    rule = {"greenlist_ratio": gamma, "bias": 2.0, "hashing_key": 15485863, "context_width": 1}
    rule |= {"seeding_scheme": "lefthash"}
    detector = WatermarkDetector(reference.model.config, "cpu", rule, ignore_repeated_ngrams=True)
    return float(detector(torch.tensor([ids]), return_dict=True).z_score[0])


def told(server: Server, seed: int, **parameters: Any) -> list[int]:
    """The ids of one text: answers to all prompts, every other one streamed."""
    asked = {"max_new_tokens": 200, "details": True, "seed": seed, **parameters}
    ids: list[int] = []
    for number, prompt in enumerate(PROMPTS):
        if number % 2:
            body = {"inputs": prompt, "parameters": asked}
            ids += [
                event["token"]["id"] for event in server.post("/generate_stream", body).events()
            ]
        else:
            answer = server.generate(prompt, **asked)
            ids += [token["id"] for token in answer["details"]["tokens"]]
    return ids
