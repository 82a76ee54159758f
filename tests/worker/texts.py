"""Prompts drawn at random, and ways to sample what follows them."""

import random

from common.sampling import SamplingParameters
from tests.worker.tiny import VOCABULARY

SAMPLED = [
    SamplingParameters(do_sample=True, seed=2**63 + 5, temperature=0.8, top_p=0.9),
    SamplingParameters(do_sample=True, seed=1, repetition_penalty=1.3, top_k=30),
    SamplingParameters(do_sample=True, seed=2, typical_p=0.9, frequency_penalty=0.5),
    SamplingParameters(
        do_sample=True, seed=3, output_frequency_penalty=0.3, output_presence_penalty=0.4
    ),
    SamplingParameters(repetition_penalty=1.2, min_new_tokens=4, logit_bias={7: 1.5}),
    SamplingParameters(do_sample=True, seed=4, watermark=True, frequency_penalty=0.5),
    SamplingParameters(watermark=True),
]


def text(choice: random.Random, length: int) -> list[int]:
    return [choice.randrange(VOCABULARY) for _ in range(length)]
