"""Writes a checkpoint of random weights at the speed of the disk, with a tokenizer made up for it.

usage: python -m bench.gpu.checkpoint OUT_DIR 8b|1b|moe|tiny|tiny-moe

Every matrix is filled from one pool of normal numbers, from a place of its own on, around and
around: drawing 8 billion of them would take minutes. A byte is a token to the tokenizer, so prompts
have as many tokens as letters; the other tokens are words that only the model says.
"""

import json
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bench.gpu.shapes import BYTES, SHAPES, Shape

_POOL_NUMBERS = 1 << 24
_SPREAD = 0.02


def tensors_of(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, as the family's checkpoints have them."""
    hidden, queries, keys = (
        shape.hidden,
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    )
    yield "model.embed_tokens.weight", (shape.vocabulary, hidden)
    for number in range(shape.layers):
        layer = f"model.layers.{number}"
        yield f"{layer}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield from _feed_forward(f"{layer}.mlp", shape)
        if shape.experts:
            yield f"{layer}.self_attn.q_norm.weight", (shape.head_dim,)
            yield f"{layer}.self_attn.k_norm.weight", (shape.head_dim,)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (shape.vocabulary, hidden)


def _feed_forward(block: str, shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    blocks = [block]
    if shape.experts:
        yield f"{block}.gate.weight", (shape.experts, shape.hidden)
        blocks = [f"{block}.experts.{number}" for number in range(shape.experts)]
    for each in blocks:
        yield f"{each}.gate_proj.weight", (shape.inner, shape.hidden)
        yield f"{each}.up_proj.weight", (shape.inner, shape.hidden)
        yield f"{each}.down_proj.weight", (shape.hidden, shape.inner)


def write(out: Path, size: str) -> None:
    """The checkpoint of one of ``SHAPES``; seed 0."""
    shape = SHAPES[size]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "model.safetensors").open("wb") as file:
        _write_weights(file, shape)
    (out / "config.json").write_text(json.dumps(shape.configuration()))
    _write_tokenizer(out, shape.vocabulary)


def _write_weights(file: BinaryIO, shape: Shape) -> None:
    """safetensors: the length of a JSON header, the header, the numbers."""
    header, offset = {}, 0
    for name, sizes in tensors_of(shape):
        end = offset + torch.Size(sizes).numel() * BYTES
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    numbers = torch.randn(_POOL_NUMBERS, generator=torch.Generator().manual_seed(0)) * _SPREAD
    bits: Any = numbers.to(torch.bfloat16).view(torch.uint8).numpy()
    pool = memoryview(bits)
    one = torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    places = random.Random(0)
    for _, sizes in tensors_of(shape):
        left = torch.Size(sizes).numel() * BYTES
        if len(sizes) == 1:
            file.write(one * sizes[0])
            continue
        place = places.randrange(_POOL_NUMBERS) * BYTES
        while left:
            piece = pool[place : place + left]
            file.write(piece)
            left, place = left - len(piece), 0


def _write_tokenizer(out: Path, vocabulary: int) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"w{number}" for number in range(vocabulary - len(letters)))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(out / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    (out / "tokenizer_config.json").write_text(json.dumps(described))


def prompts_of(number: int, tokens: int, *, seed: int) -> list[str]:
    """Prompts of exactly so many tokens, of random letters."""
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=tokens)) for _ in range(number)]


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
