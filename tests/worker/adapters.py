"""Random LoRA adapters of tiny models, as PEFT writes them, and the models with them merged in."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from common.adapters import CONFIG, WEIGHTS, Adapter, digest_of

_UNNATURAL = re.compile(r"experts|\.gate\.|\.router\.|embed|lm_head|wte|wpe|embed_out")


def write_adapter(
    directory: Path,
    model: Path,
    *,
    targets: str = "",
    rank: int = 4,
    alpha: float = 8,
    seed: int = 0,
    merged: Path | None = None,
    strength: float = 0.2,
    **config: Any,
) -> Adapter:
    """An adapter of all linear layers whose names match ``targets``, experts aside.

    ``config`` are further entries; ``rank_pattern`` and ``alpha_pattern`` among them are heeded.
    ``merged``: where the model with the adapter's weights in its own is to be written.
    """
    weights = load_file(model / "model.safetensors")
    transposed = json.loads((model / "config.json").read_text())["model_type"] == "gpt2"
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for key, weight in list(weights.items()):
        module = key.removesuffix(".weight")
        if key == module or weight.dim() != 2 or _UNNATURAL.search(key):
            continue
        if not re.search(targets, module):
            continue
        r = _of(config.get("rank_pattern"), module, rank)
        outputs, inputs = weight.shape[::-1] if transposed else weight.shape
        a = torch.randn((r, inputs), generator=generator) * strength
        b = torch.randn((outputs, r), generator=generator) * strength
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        scale = _of(config.get("alpha_pattern"), module, alpha)
        scale /= r**0.5 if config.get("use_rslora") else r
        more = b @ a * scale
        weights[key] = (weight.float() + (more.T if transposed else more)).to(weight.dtype)
    assert tensors, "no layer matches"
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / WEIGHTS)
    entries = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none"} | config
    (directory / CONFIG).write_text(json.dumps(entries))
    if merged is not None:
        shutil.copytree(model, merged, dirs_exist_ok=True)
        save_file(
            {key: weight.contiguous() for key, weight in weights.items()},
            merged / "model.safetensors",
            metadata={"format": "pt"},
        )
    return adapter_in(directory)


def adapter_in(directory: Path, name: str | None = None) -> Adapter:
    return Adapter(
        name=name or directory.name,
        digest=digest_of(directory),
        directory=str(directory),
        source=str(directory),
    )


def _of(patterns: dict[str, float] | None, module: str, otherwise: Any) -> Any:
    return next((v for end, v in (patterns or {}).items() if module.endswith(end)), otherwise)
