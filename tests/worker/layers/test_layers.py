"""Slots: which tensors a declaration asks for, and where they go."""

import pytest
import torch

from worker.kernels.select import reference
from worker.layers.embedding import Embedding, VocabularyEmbedding
from worker.layers.layer import Layer
from worker.layers.linear import (
    ColumnParallelLinear,
    FusedLinear,
    HeadwiseLinear,
    Linear,
    Transposed,
)
from worker.layers.mixture import Mixture, MixtureShape
from worker.layers.norm import RMSNorm
from worker.sharding import Units

CPU = torch.device("cpu")
KERNELS = reference(CPU, torch.float32)


class Block(Layer):
    def __init__(self):
        self.both = FusedLinear(KERNELS, 3, {"left": Units(2), "right": Units(4)}, bias=True)
        self.down = Linear(KERNELS, 6, 3, bias=False)


class Tree(Layer):
    def __init__(self):
        self.blocks = [Block(), Block()]
        self.embed = Embedding(KERNELS, 5, 3)
        self.other = 7


def test_slots_are_named_as_the_checkpoint():
    shapes = {slot.key: slot.shape for slot in Tree().slots()}
    assert shapes == {
        "blocks.0.left.weight": (2, 3),
        "blocks.0.left.bias": (2,),
        "blocks.0.right.weight": (4, 3),
        "blocks.0.right.bias": (4,),
        "blocks.0.down.weight": (3, 6),
        "blocks.1.left.weight": (2, 3),
        "blocks.1.left.bias": (2,),
        "blocks.1.right.weight": (4, 3),
        "blocks.1.right.bias": (4,),
        "blocks.1.down.weight": (3, 6),
        "embed.weight": (5, 3),
    }


def test_a_fused_layer_is_its_parts_in_any_order_of_loading():
    torch.manual_seed(0)
    tensors = {
        "left.weight": torch.randn(2, 3),
        "left.bias": torch.randn(2),
        "right.weight": torch.randn(4, 3, dtype=torch.float64),
        "right.bias": torch.randn(4),
    }
    layer = FusedLinear(KERNELS, 3, {"left": Units(2), "right": Units(4)}, bias=True)
    for slot in sorted(layer.slots("both"), key=lambda slot: slot.key, reverse=True):
        slot.fill(tensors[slot.key])
    x = torch.randn(5, 3)
    left = x @ tensors["left.weight"].T + tensors["left.bias"]
    right = x @ tensors["right.weight"].float().T + tensors["right.bias"]
    assert torch.allclose(layer(x), torch.cat((left, right), -1), atol=1e-6)


def test_filling_copies():
    tensor = torch.randn(3, 6)
    layer = Linear(KERNELS, 6, 3, bias=False)
    (slot,) = layer.slots("down")
    slot.fill(tensor)
    x = torch.randn(2, 6)
    wanted = x @ tensor.T
    tensor.zero_()
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_an_embedding_keeps_the_smaller_dtype():
    for stored, kept in (
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
    ):
        layer = Embedding(KERNELS, 5, 3)
        (slot,) = layer.slots("embed")
        table = torch.randn(5, 3).to(stored)
        slot.fill(table)
        assert layer.weight.dtype == kept
        rows = layer(torch.tensor([4, 0]))
        assert rows.dtype == torch.float32
        assert torch.equal(rows, table[[4, 0]].float())
    layer = Embedding(reference(CPU, torch.float16), 5, 3)
    (slot,) = layer.slots("embed")
    slot.fill(torch.ones(5, 3, dtype=torch.bfloat16))
    assert layer.weight.dtype == torch.float16


def test_a_transposed_layer():
    layer = Transposed(ColumnParallelLinear(KERNELS, 3, Units(6), bias=True))
    weight, bias = torch.randn(3, 6), torch.randn(6)
    for slot, tensor in zip(layer.slots("c_fc"), (weight, bias), strict=True):
        assert slot.shape == tensor.shape
        slot.fill(tensor)
    x = torch.randn(2, 3)
    assert torch.allclose(layer(x), x @ weight + bias, atol=1e-6)


def test_a_layer_stored_head_by_head():
    heads, parts, head_dim = 4, 3, 2
    layer = HeadwiseLinear(KERNELS, 5, heads, parts, head_dim, bias=True)
    weight, bias = torch.randn(24, 5), torch.randn(24)
    for slot, tensor in zip(layer.slots("qkv"), (weight, bias), strict=True):
        slot.fill(tensor)
    x = torch.randn(7, 5)
    wanted = (x @ weight.T + bias).view(7, heads, parts, head_dim).transpose(1, 2).flatten(1)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_a_scaled_embedding():
    layer = VocabularyEmbedding(reference(CPU, torch.bfloat16), 5, 3, scale=55.4256)
    (slot,) = layer.slots("embed")
    slot.fill(torch.ones(5, 3))
    assert torch.equal(layer(torch.tensor([1])), torch.full((1, 3), 55.5, dtype=torch.bfloat16))
    assert torch.equal(layer.weight, torch.ones(5, 3, dtype=torch.bfloat16))


def test_an_offset_norm():
    for dtype in (torch.float32, torch.bfloat16):
        layer = RMSNorm(reference(CPU, dtype), 8, 1e-6, offset=1.0)
        (slot,) = layer.slots("norm")
        slot.fill(torch.full((8,), 0.25, dtype=torch.bfloat16))
        got = layer(torch.full((2, 8), 3.0, dtype=dtype))
        assert got.dtype == dtype
        assert (got - 1.25).abs().max() < 1e-6


def mixture(normalized, seed=0):
    """A mixture, and its router and experts as functions."""
    torch.manual_seed(seed)
    layer = Mixture(KERNELS, 6, MixtureShape(5, 2, 4, normalized), "silu")
    tensors = {}
    for slot in layer.slots("mlp"):
        for part in slot.parts or (slot,):
            tensors[part.key] = torch.randn(part.shape)
            part.fill(tensors[part.key])
    return layer, tensors


def written_out(x, tensors, normalized):
    likely = (tensors["mlp.gate.weight"] @ x).softmax(-1)
    weights, experts = likely.topk(2)
    weights = weights / weights.sum() if normalized else weights
    total = torch.zeros(6)
    for weight, expert in zip(weights, experts.tolist(), strict=True):
        gate, up, down = (
            tensors[f"mlp.experts.{expert}.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        total += weight * (down @ (torch.nn.functional.silu(gate @ x) * (up @ x)))
    return total


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("tokens", [0, 1, 2, 40])
def test_a_mixture_of_experts(tokens, normalized):
    layer, tensors = mixture(normalized)
    x = torch.randn(tokens, 6)
    got = layer(x)
    assert got.shape == (tokens, 6)
    for row, token in zip(got, x, strict=True):
        assert (row - written_out(token, tensors, normalized)).abs().max() < 1e-5
