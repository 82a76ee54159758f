"""Trains the built-in model from scratch and writes its folder.

`python -m tools.builtin_model.train --seed 0` is the whole recipe: text, tokenizer, weights, card.
Runs by hand on a CPU. Floating point differs between machines, so another machine's weights are
another model of the same quality, not the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tools.builtin_model.card import write_card
from tools.builtin_model.chat import BOS, EOS, PAD, SPECIAL_TOKENS
from tools.builtin_model.data import GROUNDWORK, REVISION, Example, Mixture, examples
from tools.builtin_model.packing import LONG_TOKENS, Row, packed_rows
from tools.builtin_model.tokenizer import (
    MAX_LENGTH_TOKENS,
    VOCABULARY_SIZE,
    save_tokenizer,
    train_tokenizer,
)

MODEL_FOLDER: Final = Path(__file__).parents[2] / "common" / "models" / "builtin"
_TOKENIZER_EXAMPLES: Final = 40_000
_LOG_EVERY_STEPS: Final = 50
_WRITE_EVERY_STEPS: Final = 400
_BATCH_TOKENS: Final = 2048
_WEIGHT_DECAY: Final = 0.05
_CLIP_NORM: Final = 1.0


@dataclass(frozen=True)
class Phase:
    """One stretch of training: a mixture of examples under one learning-rate curve.

    A phase may end before its curve does, for the next one to take over at a useful rate.
    """

    mixture: Mixture
    seed_offset: int  # phases of one run never see the same stream
    steps: int
    curve_steps: int
    peak_rate: float
    last_rate: float
    warmup_steps: int

    def rate(self, step: int) -> float:
        """Learning rate: a linear warm-up, then half a cosine."""
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.curve_steps - self.warmup_steps)
        return (
            self.last_rate + (self.peak_rate - self.last_rate) * (1 + math.cos(math.pi * done)) / 2
        )


PHASES: Final = (
    Phase(
        mixture=GROUNDWORK,
        seed_offset=0,
        steps=2800,
        curve_steps=4000,
        peak_rate=2e-3,
        last_rate=5e-5,
        warmup_steps=150,
    ),
    Phase(
        mixture=REVISION,
        seed_offset=1_000,
        steps=1800,
        curve_steps=1800,
        peak_rate=1e-3,
        last_rate=2e-5,
        warmup_steps=60,
    ),
)


def new_model(seed: int) -> LlamaForCausalLM:
    """A Llama of 3.3 million parameters with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL_TOKENS.index(BOS),
        eos_token_id=SPECIAL_TOKENS.index(EOS),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
        initializer_range=0.03,
        use_cache=True,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: Tokenizer, source: Iterator[Example], tokens: int) -> Iterator[list[Row]]:
    """Lists of rows of one length, about `tokens` tokens each."""
    waiting: dict[int, list[Row]] = {}
    for row in packed_rows(tokenizer, source):
        length = len(row.ids)
        rows = waiting.setdefault(length, [])
        rows.append(row)
        if len(rows) * length >= tokens:
            yield waiting.pop(length)


def weighted_loss(model: LlamaForCausalLM, rows: list[Row]) -> torch.Tensor:
    """Mean cross entropy of the next token over a batch, weighted per token."""
    ids = torch.from_numpy(np.stack([row.ids for row in rows])).long()  # [batch, length]
    weights = torch.from_numpy(np.stack([row.weights for row in rows]))[:, 1:]
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # [batch, length - 1, vocabulary]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    weights = weights.flatten()
    return (losses * weights).sum() / weights.sum()


def write_folder(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, configuration and tokenizer, as transformers and the worker read them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # a server may run as another user
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]  # for readers of the older form
    _write_json(path, config)
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(folder / "generation_config.json", ends)
    save_tokenizer(tokenizer, folder)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": _WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def run_phase(
    model: LlamaForCausalLM, tokenizer: Tokenizer, phase: Phase, seed: int, folder: Path
) -> int:
    """Train one phase, writing `folder` now and then and at the end; returns the tokens seen."""
    optimizer = _optimizer(model)
    stream = examples(seed + phase.seed_offset, phase.mixture)
    started = time.monotonic()
    tokens, recent = 0, 0.0
    source = islice(batches(tokenizer, stream, _BATCH_TOKENS), phase.steps)
    for step, rows in enumerate(source, start=1):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate(step - 1)
        loss = weighted_loss(model, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(len(row.ids) for row in rows)
        recent += loss.item() / _LOG_EVERY_STEPS
        if step % _LOG_EVERY_STEPS == 0:
            spent_s = time.monotonic() - started
            print(f"{step} loss {recent:.4f} {tokens / spent_s:.0f} tokens/s {spent_s:.0f} s")
            recent = 0.0
        if step % _WRITE_EVERY_STEPS == 0:
            write_folder(model, tokenizer, folder)
    write_folder(model, tokenizer, folder)
    return tokens


def train(seed: int, folder: Path) -> dict[str, int]:
    """Train tokenizer and model from scratch; returns what it took."""
    started = time.monotonic()
    texts = (e.text for e in islice(examples(seed, GROUNDWORK), _TOKENIZER_EXAMPLES))
    tokenizer = train_tokenizer(texts)
    model = new_model(seed)
    tokens = sum(run_phase(model, tokenizer, phase, seed, folder) for phase in PHASES)
    return {
        "seed": seed,
        "steps": sum(phase.steps for phase in PHASES),
        "tokens": tokens,
        "seconds": round(time.monotonic() - started),
        "threads": torch.get_num_threads(),
        "longest_row_tokens": LONG_TOKENS,
    }


def main() -> None:
    """Parse the command line, train, measure, write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=MODEL_FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = train(options.seed, options.folder)
    write_card(options.folder, run)


if __name__ == "__main__":
    main()
