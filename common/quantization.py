"""Which quantization a checkpoint has, and what ``--quantize`` makes of it: names, no tensors.

Runs in the launcher, which refuses what cannot be, and in the worker, which reads the tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from common.errors import StartupError

CHOICES = (
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
    "mxfp4",
)
"""Of ``--quantize``: TGI's, and the last."""
STORED = ("gptq", "awq", "fp8", "fbgemm_fp8", "compressed-tensors", "bitsandbytes", "mxfp4")
"""What checkpoints may be quantized with."""
AT_LOAD = ("eetq", "fp8", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
"""What becomes of unquantized weights when they are loaded."""
_FITTING = {
    "gptq": ("gptq", "awq"),
    "awq": ("awq",),
    "marlin": ("gptq", "awq"),
    "fp8": ("fp8", "fbgemm_fp8"),
    "compressed-tensors": ("compressed-tensors",),
    "mxfp4": ("mxfp4",),
    "bitsandbytes": ("bitsandbytes",),
    "bitsandbytes-nf4": ("bitsandbytes",),
    "bitsandbytes-fp4": ("bitsandbytes",),
}
"""Checkpoints that a choice is right for: Marlin is kernels for the numbers of GPTQ and AWQ."""
_EXL2 = "EXL2 is a format of one library's kernels and cannot be read here"
_BESIDE = ("quantize_config.json", "quant_config.json")
"""Where older checkpoints say how they were quantized."""


@dataclass(frozen=True)
class Quantization:
    """What is to be done with a model's weights."""

    stored: str | None = None
    """One of ``STORED``; None: the checkpoint is not quantized."""
    at_load: str | None = None
    """One of ``AT_LOAD``."""
    entries: Mapping[str, Any] = field(default_factory=dict)
    """What the checkpoint says of it."""

    def __str__(self) -> str:
        """For people."""
        if self.stored is not None:
            bits = self.entries.get("bits")
            return f"quantized with {self.stored}" + (f", {bits} bits" if bits else "")
        if self.at_load is not None:
            return f"quantized as they are loaded ({self.at_load})"
        return "not quantized"


def read_quantization(
    asked: str | None, config: Mapping[str, Any], directory: Path
) -> Quantization:
    """From config.json, or the file beside it. Raises StartupError for what cannot be."""
    return resolve(asked, entries_of(config, directory))


def entries_of(config: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """What a checkpoint says of its quantization, under today's names; empty if it has none."""
    entries = config.get("quantization_config") or config.get("compression_config")
    if not entries:
        entries = next(filter(None, (_read(directory / name) for name in _BESIDE)), {})
    if not isinstance(entries, Mapping):
        raise StartupError("config.json: quantization_config must be an object")
    return entries


def _read(path: Path) -> dict[str, Any]:
    """AutoGPTQ's and AutoAWQ's own files, of before ``quantization_config``."""
    if not path.is_file():
        return {}
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from None
    is_awq = "zero_point" in found or str(found.get("version", "")).lower() == "gemm"
    renamed = {
        "quant_method": "awq" if is_awq else "gptq",
        "bits": found.get("w_bit"),
        "group_size": found.get("q_group_size"),
    }
    return {name: value for name, value in renamed.items() if value is not None} | found


def resolve(asked: str | None, entries: Mapping[str, Any]) -> Quantization:
    """What ``--quantize`` and the checkpoint amount to. Raises StartupError."""
    method = _method(entries)
    if asked == "exl2" or method == "exl2":
        raise StartupError(
            f"{_EXL2}: use a checkpoint of {', '.join(STORED)}, or an unquantized one with"
            f" --quantize {', '.join(AT_LOAD)}"
        )
    if method is None:
        return _unquantized(asked)
    if method not in STORED:
        raise StartupError(
            f"the checkpoint is quantized with {method}, which is not supported: use one of"
            f" {', '.join(STORED)}, or the unquantized model"
        )
    wanted = _choice_for(method, entries)
    if asked is None or asked == wanted or (method != "bitsandbytes" and _fits(asked, method)):
        return Quantization(stored=method, entries=entries)
    stored = wanted if method == "bitsandbytes" else method
    raise StartupError(
        f"--quantize {asked} does not fit the checkpoint, which is quantized with {stored}: leave"
        f" it out, or use --quantize {wanted}"
    )


def _unquantized(asked: str | None) -> Quantization:
    if asked is None or asked in AT_LOAD:
        return Quantization(at_load=asked)
    raise StartupError(
        f"--quantize {asked} needs a checkpoint that has been quantized, and this one is not: use"
        f" such a checkpoint, or --quantize {', '.join(AT_LOAD)}, which quantize weights as they"
        " are loaded"
    )


def _fits(asked: str, method: str) -> bool:
    return method in _FITTING.get(asked, ())


def _method(entries: Mapping[str, Any]) -> str | None:
    if not entries:
        return None
    return str(entries.get("quant_method") or entries.get("quantization_method") or "unknown")


def _choice_for(method: str, entries: Mapping[str, Any]) -> str:
    """What ``--quantize`` calls it."""
    if method == "fbgemm_fp8":
        return "fp8"
    if method == "bitsandbytes" and entries.get("load_in_4bit"):
        return f"bitsandbytes-{entries.get('bnb_4bit_quant_type', 'fp4')}"
    return method
