"""How the pairs of a mixture, tokens and their experts, are cut into tiles: each of one expert.

How many tiles there are is known on the device alone; a launch has as many programs as there might
be, and those without a tile end at once. So launches depend on the number of tokens alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import triton
import triton.language as tl

from worker.kernels.triton.activation import Gate, gate_and_multiply
from worker.kernels.triton.launch import early
from worker.kernels.triton.routing import Routed

ALIGNED = tl.constexpr(16)
"""Numbers: how far apart weights lie is a multiple of it."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program computes at a time, and how."""

    rows: int
    """Of one expert."""
    outputs: int
    """Of gated layers half as many, twice."""
    inputs: int
    warps: int
    stages: int


class Launch(NamedTuple):
    """One of all experts' matrices."""

    y: torch.Tensor
    """To be written."""
    grid: tuple[int, int]
    """Programs: tiles, and how often a tile's outputs."""
    tile: Tile
    constants: dict[str, Any]
    """That both kernels have."""


class ExpertMatrices(Protocol):
    """One matrix of each expert, [outputs, inputs]."""

    def multiply(self, x: torch.Tensor, routed: Routed, gate: Gate | None) -> torch.Tensor:
        """A new tensor [T · k, outputs]: what an expert's matrix makes of each of its tokens.

        With a gate: of tokens [T, inputs], in the order of experts; outputs are gates and, below
        them, ups, of which half as many become. Else of rows in the order of experts [T · k,
        inputs], in the order of tokens.
        """


@triton.jit
def find_tile(starts, count, EXPERTS: tl.constexpr, ROWS: tl.constexpr):
    """A program's expert, its first pair in the order of experts, and where the expert's end.

    An expert of ``count`` or more: there is nothing for it to do.
    """
    e = tl.arange(0, EXPERTS)
    first = tl.load(starts + e, mask=e < count, other=0)
    end = tl.load(starts + e + 1, mask=e < count, other=0)
    tiles = (end - first + ROWS - 1) // ROWS
    upto = tl.cumsum(tiles, 0)
    tile = tl.program_id(0)
    expert = tl.sum((upto <= tile).to(tl.int32), 0)
    own = e == expert
    begin = tl.sum(tl.where(own, first + (tile - upto + tiles) * ROWS, 0), 0)
    return expert, begin, tl.sum(tl.where(own, end, 0), 0)


@triton.jit
def rows_of(order, m, here, CHOSEN: tl.constexpr, GATE: tl.constexpr):
    """Where a tile's pairs ``m``, in the order of experts, are read and written."""
    pair = tl.load(order + m, mask=here, other=0)
    if GATE is not None:
        source, target = pair // CHOSEN, m
    else:
        source, target = m, pair
    return source.to(tl.int64), target.to(tl.int64)


@triton.jit
def end_with(
    sums, ups, biases, bias_places, expert, n, inside, outputs,
    BIAS: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Sums of a tile with the expert's bias, and what the gate makes of them and of the ups."""
    if BIAS:
        bias = biases + tl.load(bias_places + expert)
        sums += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)[None, :]
        if GATE is not None:
            ups += tl.load(bias + outputs + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    if GATE is not None:
        sums = gate_and_multiply(sums, ups, GATE)
    return sums


def places_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """[n] int64: how many numbers behind the first of them each of these lies."""
    size, first = tensors[0].itemsize, tensors[0].data_ptr()
    places = [(tensor.data_ptr() - first) // size for tensor in tensors]
    assert not any(place % ALIGNED.value for place in places), "memory of its own for each"
    return torch.tensor(places, dtype=torch.int64).to(tensors[0].device)


def launch_of(
    x: torch.Tensor,
    routed: Routed,
    gate: Gate | None,
    outputs: int,
    experts: int,
    tiles: Sequence[Tile],
) -> Launch:
    """Of ``ExpertMatrices.multiply``, over matrices of so many outputs."""
    pairs, chosen = len(routed.order), routed.weights.shape[1]
    tile = tile_for(pairs / experts, tiles)
    at_once = tile.outputs
    if gate is not None:
        outputs, at_once = outputs // 2, at_once // 2
    constants = {
        "CHOSEN": chosen,
        "GATE": None if gate is None else int(gate),
        "EXPERTS": triton.next_power_of_2(experts),
        "ROWS": tile.rows,
        "OUTPUTS": at_once,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        **early(x.device),
    }
    grid = most_tiles(pairs, experts, tile.rows), triton.cdiv(outputs, at_once)
    return Launch(x.new_empty((pairs, outputs)), grid, tile, constants)


def most_tiles(pairs: int, experts: int, rows: int) -> int:
    """That so many pairs can be cut into, however many of them each expert has."""
    begun = min(pairs, experts)
    return begun + (pairs - begun) // rows


def tile_for(pairs_each: float, tiles: Sequence[Tile]) -> Tile:
    """The smallest that holds what an expert has on average, twice over; they go by their size."""
    return next((tile for tile in tiles if 2 * pairs_each <= tile.rows), tiles[-1])
