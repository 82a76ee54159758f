"""Small sums over shards by one kernel: each reads the others' memory (symmetric memory of torch).

Runs in every shard, on GPUs that reach each other's memory. NCCL takes tens of microseconds for
what a decoding step adds up twice a layer; here each shard copies its part to where all can read
it, waits for the others' and adds up, which can be captured in a graph. Larger sums are NCCL's: it
moves less. All shards use it or none does: see ``Group.form``.

Source: torch's ``torch.distributed._symmetric_memory`` and its ``symm_mem`` operators, which torch
calls unstable: whatever is missing here is a reason to do without.
"""

from typing import Any, Protocol

import torch
import torch.distributed as dist

_MOST_BYTES = 2 << 20
"""Of a sum, divided by the shards: each reads that from every other one."""
_ALIGNMENT_BYTES = 16
_DTYPES = (torch.bfloat16, torch.float32)


class SmallSum(Protocol):
    """Adds up what is small."""

    def takes(self, tensor: torch.Tensor) -> bool:
        """Whether it can add up this one: all shards answer alike."""

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """A new tensor, the sum over all shards; called by all of them in the same order."""

    def meet(self) -> None:
        """Once, before: returns when all shards have come."""


class OneShot:
    """As ``SmallSum``."""

    def __init__(self, rank: int, size: int, device: torch.device, store: Any, name: str) -> None:
        """``name``: of the group, nobody else's on this machine; ``store``: where shards meet."""
        from torch._C._distributed_c10d import _SymmetricMemory

        self._name = name
        self._most_bytes = _MOST_BYTES // size
        untyped: Any = dist
        apart = untyped.PrefixStore("symmetric", store)
        memory: Any = _SymmetricMemory
        memory.set_group_info(name, rank, size, apart)
        # Not from torch's pool of such memory, in which a tensor begins anywhere.
        place = (
            torch.device("cuda", torch.cuda.current_device()) if device.index is None else device
        )
        self._buffer = memory.empty_strided_p2p((self._most_bytes,), (1,), torch.uint8, place)
        self._rendezvous: Any = memory.rendezvous
        self._add_up: Any = torch.ops.symm_mem.one_shot_all_reduce_copy

    def meet(self) -> None:
        """As ``SmallSum.meet``."""
        self._rendezvous(self._buffer, self._name)

    def takes(self, tensor: torch.Tensor) -> bool:
        """As ``SmallSum.takes``."""
        return tensor.dtype in _DTYPES and fits(tensor.nbytes, self._most_bytes)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """As ``SmallSum.__call__``."""
        place = self._buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        total: torch.Tensor = self._add_up(place, tensor, "sum", self._name)
        return total


def fits(size_bytes: int, most_bytes: int) -> bool:
    """Of a tensor: neither too large nor of odd length."""
    return 0 < size_bytes <= most_bytes and size_bytes % _ALIGNMENT_BYTES == 0


def obstacle(rank: int, size: int, device: torch.device) -> str:
    """Why this shard cannot take part; empty if it may try.

    A group has neighbouring GPUs, in the order of its shards: workers take them by their numbers.
    """
    if device.type != "cuda":
        return "shards of a CPU add up over sockets"
    if not hasattr(torch.ops.symm_mem, "one_shot_all_reduce_copy"):
        return f"torch {torch.__version__} has no such operator"
    devices = torch.cuda.device_count()
    if devices < size:
        return f"{size} shards are on {devices} GPUs"
    own = device.index if device.index is not None else torch.cuda.current_device()
    for shard in range(size):
        other = (own - rank + shard) % devices
        if other != own and not torch.cuda.can_device_access_peer(own, other):
            return f"GPU {own} does not reach the memory of GPU {other}"
    return ""
