"""Writes tiny random checkpoints, with a tokenizer of bytes, for tests of every kind.

Weights are spread widely, so that the next token depends visibly on every token before it; biases
and norms are random too. Token id b is byte b.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

VOCABULARY = 256
EOS_BYTE = 0
"""The tokenizer's end-of-sequence token. A configuration names it only if asked to."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_tiny_llama(directory: Path | str, *, seed: int = 0, **config_overrides: Any) -> None:
    """Write config.json, model.safetensors and the tokenizer of a Llama.

    ``config_overrides`` are arguments of transformers' LlamaConfig; ``dtype`` among them decides
    what the weights are stored in (a torch dtype, float32 by default).
    """
    dtype = config_overrides.pop("dtype", torch.float32)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    write_tiny(directory, LlamaConfig(**(settings | config_overrides)), seed=seed, dtype=dtype)


def write_tiny(
    directory: Path | str,
    config: PreTrainedConfig,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """The same for any of transformers' configurations, with a vocabulary of ``VOCABULARY``.

    Where the output layer is the embedding, embeddings are small: else each token would follow
    itself. (Not so for Llama, on whose weights tests rest.)
    """
    tied = config.tie_word_embeddings and config.model_type != "llama"
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                embedding = "embed" in name or ".wte." in name or ".wpe." in name
                parameter.copy_(noise * ((0.02 if tied else 1.0) if embedding else 0.15))
            else:
                scale = name.endswith("weight") and not config.model_type.startswith("gemma")
                parameter.copy_(noise * 0.2 + (1.0 if scale else 0.0))
    model.to(dtype).save_pretrained(directory)
    write_byte_tokenizer(directory)


def write_byte_tokenizer(directory: Path | str) -> None:
    """Write tokenizer.json and tokenizer_config.json of a tokenizer whose 256 tokens are bytes."""
    vocabulary = {character: byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = _characters()[EOS_BYTE]
    tokenizer.add_special_tokens([end])
    tokenizer.save(str(Path(directory) / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "chat_template": CHAT_TEMPLATE,
    }
    (Path(directory) / "tokenizer_config.json").write_text(json.dumps(config))


def _characters() -> list[str]:
    """How the byte-level alphabet writes each byte: printable ones as they are, others from 256."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    characters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    assert set(characters) == set(ByteLevel.alphabet())
    return characters
