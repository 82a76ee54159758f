"""Layers as kernels see them that run a whole stack: see ``kernels/stack.py``."""

from worker.kernels.stack import Block
from worker.layers.linear import Matrix, Transposed
from worker.layers.norm import Norm


def block_of(
    before: Norm | None,
    first: Matrix | Transposed,
    second: Matrix | Transposed,
    after: Norm | None = None,
) -> Block:
    """What has been made of these layers' weights."""
    return Block(
        before.operations if before else None,
        first.operation,
        second.operation,
        after.operations if after else None,
    )
