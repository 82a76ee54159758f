"""Reference kernel: the gated activation of a feed-forward block."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name


def silu_and_multiply(gate_and_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` (SwiGLU, Shazeer 2020): [T, 2 · width], gate first, to [T, width]."""
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
