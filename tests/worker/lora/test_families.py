"""Each family with adapters answers as it would with their weights merged into its own.

Sequences of several adapters and of none run in the same steps, their prompts in chunks.
"""

import random

import pytest
import torch
from transformers import LlamaConfig

from tests.worker.adapters import write_adapter
from tests.worker.driver import CPU, Driver
from tests.worker.models.families import _SIZES, FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import VOCABULARY, write_tiny
from worker.loading import load_model

ALL = {"llama": lambda: LlamaConfig(**_SIZES, attention_bias=True, mlp_bias=True), **FAMILIES}
BLOCKS = 64


def prompt(length, seed):
    return random.Random(seed).choices(range(VOCABULARY), k=length)


def load(directory, adapters=()):
    return load_model(str(directory), device=CPU, dtype=torch.float32, adapters=adapters)


@pytest.mark.parametrize("family", list(ALL))
def test_merged_weights_give_the_same_tokens(family, tmp_path) -> None:
    base = tmp_path / "base"
    write_tiny(base, ALL[family]())
    merged = [tmp_path / "merged-a", tmp_path / "merged-b"]
    one = write_adapter(tmp_path / "a", base, rank=3, alpha=6, seed=1, merged=merged[0])
    two = write_adapter(
        tmp_path / "b",
        base,
        targets=r"q_proj|qkv|query_key|c_attn|o_proj|dense$|c_proj",
        rank=8,
        alpha=4,
        use_rslora=True,
        seed=2,
        merged=merged[1],
    )
    model = load(base, [one, two])
    prompts = [prompt(length, seed=length) for length in (37, 61, 20, 45)]
    expected = [
        Paged(load(directory)).generate(ids, 12)
        for directory, ids in zip([*merged, base, merged[0]], prompts, strict=True)
    ]
    assert Paged(load(base)).generate(prompts[0], 12) != expected[0]
    driver = Driver(
        model,
        model.make_cache(model.configuration, BLOCKS, CPU),
        blocks=BLOCKS,
        step_tokens=24,
        adapters=(one.digest, two.digest),
    )
    digests = [one.digest, two.digest, "", one.digest]
    for number, (ids, digest) in enumerate(zip(prompts, digests, strict=True)):
        driver.add(number, ids, 12, adapter=digest)
    driver.run()
    assert [driver.records[number].ids for number in range(4)] == expected
