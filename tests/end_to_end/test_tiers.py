"""Over HTTP, models that run through transformers: one of each tier, and one that is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, GemmaConfig, GenerationConfig

from tests.end_to_end.harness import Server, launched, running, together
from tests.worker.through_transformers.compare import make_tiny
from tests.worker.tiny import VOCABULARY, write_byte_tokenizer

TOKENS = 12
PROMPTS = ["Once upon a time", "The capital", "x" * 40, "Why is the sky blue, and not green? " * 2]
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 64, "bos_token_id": 1, "eos_token_id": None}
CONFIGS = {
    "over the paged cache": GemmaConfig(
        **SMALL,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
    ),
    "with its own cache": BloomConfig(**SMALL, n_layer=2, n_head=4),
}
ROOM = ("--max-total-tokens", "128", "--max-batch-prefill-tokens", "32", "--speculate", "2")


@pytest.fixture(scope="module", params=CONFIGS)
def tier(request: Any, tmp_path_factory: Any) -> Iterator[tuple[str, Server, list[list[int]]]]:
    directory = tmp_path_factory.mktemp("model")
    model = make_tiny(CONFIGS[request.param], spread=0.3)
    settings = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    texts = []
    for prompt in PROMPTS:
        ids = torch.tensor([list(prompt.encode())])
        texts.append(model.generate(ids, generation_config=settings)[0, ids.shape[1] :].tolist())
    model.save_pretrained(directory)
    write_byte_tokenizer(directory)
    with running("--model-id", str(directory), "--dtype", "float32", *ROOM) as server:
        yield request.param, server, texts


def test_the_log_names_the_tier(tier: tuple[str, Server, list[list[int]]]) -> None:
    name, server, _ = tier
    assert any(name in line for line in server.log), server.tail()
    refused = any("this model cannot take tokens back" in line for line in server.log)
    assert refused == (name == "with its own cache")


def test_as_transformers_generates(tier: tuple[str, Server, list[list[int]]]) -> None:
    name, server, texts = tier

    def ask(number: int) -> list[int]:
        prompt = PROMPTS[number % len(PROMPTS)]
        answer = server.generate(prompt, max_new_tokens=TOKENS, details=True)
        return [token["id"] for token in answer["details"]["tokens"]]

    assert together(2 * len(PROMPTS), ask) == texts * 2
    assert ask(3) == texts[3]  # its prefix is known by now
    cached = server.metrics()["millrace_prefix_hit_tokens_total"]
    assert (cached > 0) == (name == "over the paged cache")


def test_refused_by_name(tmp_path: Path) -> None:
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    model = make_tiny(CONFIGS["over the paged cache"])
    model.save_pretrained(tmp_path)
    write_byte_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with launched("--model-id", str(tmp_path)) as server:
        assert server.end(60) != 0
    assert "encoder and a decoder" in server.log[-1], server.tail()
