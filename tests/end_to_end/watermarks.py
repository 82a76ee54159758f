"""Texts with a watermark and without, and the public detector's score of them.

The built-in model is sure of most of what it says, and says little: so it is heated, and several
answers make one text.
"""

from typing import Any

import torch
from transformers import WatermarkDetector

from tests.end_to_end.harness import Server, together
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
    """The ids of one text: answers to all prompts at once, every other one streamed."""
    asked = {"max_new_tokens": 200, "details": True, "seed": seed, **parameters}

    def answer(number: int) -> list[int]:
        prompt = PROMPTS[number]
        if number % 2:
            body = {"inputs": prompt, "parameters": asked}
            events = server.post("/generate_stream", body).events()
            return [event["token"]["id"] for event in events]
        details = server.generate(prompt, **asked)["details"]
        return [token["id"] for token in details["tokens"]]

    return [token for ids in together(len(PROMPTS), answer) for token in ids]
