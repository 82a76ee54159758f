"""Write a random-weight Llama checkpoint with a real tokenizer: the model of the speed comparisons.

usage: python -m bench.random_llama OUT_DIR 135m|1b

Weights are random, so it says nothing sensible; speed does not depend on their values. The
tokenizer is a byte-level BPE trained on the standard library of the interpreter that runs this.
"""

import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "rope_theta": 100000.0,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 128256, "rope_theta": 500000.0,
    },
}  # fmt: skip
CONTEXT_TOKENS = 8192


def write(out: Path, size: str) -> None:
    """The checkpoint of one of ``SHAPES``, bfloat16, seed 0."""
    shape = SHAPES[size]
    torch.manual_seed(0)
    configuration = LlamaConfig(
        **shape,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
    )
    model: Any = LlamaForCausalLM(configuration)
    model = model.to(torch.bfloat16)
    model.save_pretrained(out)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(stdlib.rglob("*.py"))[:3000]
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape["vocab_size"],
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
    write(Path(sys.argv[1]), sys.argv[2])
