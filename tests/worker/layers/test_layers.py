"""Slots: which tensors a declaration asks for, and where they go."""

import torch

from worker.kernels.select import reference
from worker.layers.embedding import Embedding
from worker.layers.layer import Layer
from worker.layers.linear import FusedLinear, Linear

CPU = torch.device("cpu")
KERNELS = reference(CPU, torch.float32)


class Block(Layer):
    def __init__(self):
        self.both = FusedLinear(KERNELS, 3, {"left": 2, "right": 4}, bias=True)
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
    layer = FusedLinear(KERNELS, 3, {"left": 2, "right": 4}, bias=True)
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
