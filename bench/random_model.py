"""Write a random-weight checkpoint with a real tokenizer: the models of the speed comparisons.

usage: python -m bench.random_model DIR 135m|1b|qwen3|gemma3|gpt2

Weights are random, so it says nothing sensible; speed does not depend on their values. The
tokenizer is a byte-level BPE trained on the standard library of the interpreter that runs this.
"""

import argparse
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

CONTEXT_TOKENS = 8192
_COMMON: dict[str, Any] = {
    "tie_word_embeddings": True,
    "max_position_embeddings": CONTEXT_TOKENS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size": 49152,
}
SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "135m": lambda: LlamaConfig(**_COMMON | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 100000.0,
    }),
    "1b": lambda: LlamaConfig(**_COMMON | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128256, "rope_theta": 500000.0,
    }),
    "qwen3": lambda: Qwen3Config(**_COMMON | {
        "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 24,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
    }),
    "gemma3": lambda: Gemma3TextConfig(**_COMMON | {
        "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "query_pre_attn_scalar": 256, "sliding_window": 512,
    }),
    "gpt2": lambda: GPT2Config(**_COMMON),
}  # fmt: skip
"""Llamas in two sizes, and about 120 million parameters of other families."""


def write(out: Path, name: str) -> None:
    """The checkpoint of one of ``SHAPES``, bfloat16, seed 0."""
    torch.manual_seed(0)
    configuration = SHAPES[name]()
    make: Any = AutoModelForCausalLM.from_config
    model = make(configuration).to(torch.bfloat16)
    model.save_pretrained(out)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(stdlib.rglob("*.py"))[:3000]
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=configuration.vocab_size,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    described = {"bos_token": "<s>", "eos_token": "</s>", "model_max_length": CONTEXT_TOKENS}
    (out / "tokenizer_config.json").write_text(json.dumps(described))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{out}: {millions:.1f} M parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="bench.random_model", description="A checkpoint of random weights."
    )
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("shape", choices=SHAPES)
    chosen = parser.parse_args()
    write(chosen.out, chosen.shape)
