"""The gated feed-forward block."""

import torch

from worker.kernels.select import Kernels
from worker.layers.layer import Layer
from worker.layers.linear import FusedLinear, Linear


class GatedFeedForward(Layer):
    """``down(activation(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(
        self,
        kernels: Kernels,
        hidden: int,
        width: int,
        activation: str,
        *,
        bias: bool = False,
        fused: bool = False,
    ) -> None:
        """``fused``: the checkpoint too has gate and up in one tensor, ``gate_up_proj``."""
        self.gate_up_proj: FusedLinear
        if fused:
            self.gate_up_proj = Linear(kernels, hidden, 2 * width, bias=bias)
        else:
            outputs = {"gate_proj": width, "up_proj": width}
            self.gate_up_proj = FusedLinear(kernels, hidden, outputs, bias=bias)
        self.down_proj = Linear(kernels, width, hidden, bias=bias)
        self.activation = activation
        self._activation = kernels.gated_activations[activation]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        return self.down_proj(self._activation(self.gate_up_proj(x)))
