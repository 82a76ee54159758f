"""The gated feed-forward block."""

import torch

from worker.kernels.select import Kernels
from worker.layers.layer import Layer
from worker.layers.linear import ColumnParallelLinear, FusedLinear, Matrix, RowParallelLinear
from worker.sharding import Units


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
        add_up: bool = True,
    ) -> None:
        """``fused``: the checkpoint too has gate and up in one tensor, ``gate_up_proj``.

        Without ``add_up`` the parts of shards are added up by the caller.
        """
        units, pack = Units(width), kernels.pack_gated[activation]
        self.gate_up_proj: Matrix
        if fused:
            self.gate_up_proj = ColumnParallelLinear(
                kernels, hidden, units, units, bias=bias, pack=pack
            )
        else:
            outputs = {"gate_proj": units, "up_proj": units}
            self.gate_up_proj = FusedLinear(kernels, hidden, outputs, bias=bias, pack=pack)
        self.down_proj = RowParallelLinear(kernels, units, hidden, bias=bias, add_up=add_up)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        return self.down_proj(self.gate_up_proj(x))
