"""What shards put together: sums, columns, the least of a number. Over gloo on CPUs, NCCL on GPUs.

Runs in every shard. Owns the process group of ``torch.distributed``, which is no global state: a
group can be given up and formed again, with other sockets, whatever its last collective came to.
Everything stays on this machine: gloo is bound to the loopback device, the shards find each other
through a file in the runtime directory.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from worker.sharding import Sharding

_PATIENCE = timedelta(hours=1)
"""Shards may load for so long before the first collective. Deaths are noticed otherwise."""


class Group:
    """One shard's view of its group. Collectives are called by all shards in the same order."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self._rank = rank
        self._size = size
        self._device = device
        self._process_group: Any = None
        self._sum: Any = dist.AllreduceOptions()
        self._minimum: Any = dist.AllreduceOptions()
        self._minimum.reduceOp = dist.ReduceOp.MIN  # type: ignore[assignment] # its types lie
        self._gather = dist.GatherOptions()

    @property
    def sharding(self) -> Sharding:
        """What layers are cut by, and add up with."""
        return Sharding(self._rank, self._size, self.add_up, self.gather)

    @property
    def formed(self) -> bool:
        """Whether collectives are possible."""
        return self._process_group is not None

    @property
    def can_form_again(self) -> bool:
        """Whether ``give_up`` frees shards that wait in a collective. NCCL's would wait on."""
        return self._device.type == "cpu"

    def form(self, store: str) -> None:
        """Returns when all shards have come to this store, a path. RuntimeError if they do not."""
        untyped: Any = dist
        rendezvous = untyped.FileStore(store, self._size)
        rendezvous.set_timeout(_PATIENCE)
        if self._device.type == "cpu":
            kind = untyped.ProcessGroupGloo
            options = kind._Options()
            options._devices = [kind.create_device(interface="lo")]
            options._threads = 1
        else:
            kind = untyped.ProcessGroupNCCL
            options = kind.Options()
        options._timeout = _PATIENCE
        self._process_group = kind(rendezvous, self._rank, self._size, options)
        self.least(0)  # all are connected: the file has done its work

    def give_up(self) -> None:
        """Close the connections: other shards' collectives fail, those that wait included."""
        self._process_group = None

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """As ``Sharding.add_up``."""
        self._process_group.allreduce([tensor], self._sum).wait()
        return tensor

    def gather(self, columns: torch.Tensor) -> torch.Tensor:
        """As ``Sharding.gather``."""
        columns = columns.contiguous()
        if self._rank:
            self._process_group.gather([], [columns], self._gather).wait()
            return columns
        parts = list(columns.new_empty((self._size, *columns.shape)))
        self._process_group.gather([parts], [columns], self._gather).wait()
        return torch.cat(parts, dim=1)

    def least(self, number: int) -> int:
        """The least of all shards' numbers."""
        tensor = torch.tensor([number], dtype=torch.int64, device=self._device)
        self._process_group.allreduce([tensor], self._minimum).wait()
        return int(tensor.item())
