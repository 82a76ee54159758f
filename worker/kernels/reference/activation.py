"""Reference kernels: the activations of feed-forward blocks, alone and gated."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

Activation = Callable[[torch.Tensor], torch.Tensor]


def silu_and_multiply(gate_and_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` (SwiGLU, Shazeer 2020): [T, 2 · width], gate first, to [T, width]."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def _gelu_and_multiply(gate_and_up: torch.Tensor, approximate: str) -> torch.Tensor:
    """``gelu(gate) * up`` (GEGLU, from the same): shapes as above."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate=approximate).mul_(up)


SLOPE, LIMIT = 1.702, 7.0
"""Of ``clamp_and_multiply``."""


def clamp_and_multiply(gate_and_up: torch.Tensor) -> torch.Tensor:
    """gpt-oss's: both are clamped, gate · sigmoid(slope · gate) · (up + 1); shapes as above."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
    return torch.sigmoid(SLOPE * gate).mul_(gate).mul_(up + 1)


_gelu_tanh = partial(F.gelu, approximate="tanh")

ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
}
"""By their names in config.json: [T, width] to a new tensor. Three names mean the same formula."""

GATED_ACTIVATIONS: dict[str, Activation] = {
    "silu": silu_and_multiply,
    "swish": silu_and_multiply,
    "gelu": partial(_gelu_and_multiply, approximate="none"),
    "gelu_pytorch_tanh": partial(_gelu_and_multiply, approximate="tanh"),
    "clamped_silu": clamp_and_multiply,
}
"""The same for [T, 2 · width], gate first, to [T, width]; the last name is ours."""
