"""What shards put together: sums, columns, the least of a number. Over gloo on CPUs, NCCL on GPUs.

Runs in every shard. Owns the process group of ``torch.distributed``, which is no global state: a
group can be given up and formed again, with other sockets, whatever its last collective came to.
Small sums of GPUs may take a shorter way (``one_shot``); all shards agree on it when they meet.
Everything stays on this machine: gloo is bound to the loopback device, the shards find each other
through a file in the runtime directory.
"""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from worker.parallel.one_shot import OneShot, SmallSum, obstacle
from worker.sharding import Sharding

_PATIENCE = timedelta(hours=1)
"""Shards may load for so long before the first collective. Deaths are noticed otherwise."""

_log = logging.getLogger(__name__)

MakeSmallSum = Callable[[int, int, torch.device, Any, str], SmallSum]
"""From rank, size, device, store and name, as ``OneShot``."""


class Group:
    """One shard's view of its group. Collectives are called by all shards in the same order."""

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device,
        *,
        make_small: MakeSmallSum = OneShot,
        obstacle: Callable[[int, int, torch.device], str] = obstacle,
    ) -> None:
        """``make_small`` and what stands in its way are for tests to replace."""
        self._rank = rank
        self._size = size
        self._device = device
        self._make_small = make_small
        self._obstacle = obstacle
        self._small: SmallSum | None = None
        self._process_group: Any = None
        self._sum: Any = dist.AllreduceOptions()
        self._minimum: Any = dist.AllreduceOptions()
        self._minimum.reduceOp = dist.ReduceOp.MIN  # type: ignore[assignment] # its types lie
        self._gather = dist.GatherOptions()
        self._tell = dist.BroadcastOptions()

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
            # One of its threads asks the store every second whether some shard has timed out. Once
            # the file is gone that waits as long as its patience lasts, and the end of this process
            # waits for the thread.
            os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] = "0"
            kind = untyped.ProcessGroupNCCL
            options = kind.Options()
        options._timeout = _PATIENCE
        self._process_group = kind(rendezvous, self._rank, self._size, options)
        self.least(0)  # all are connected
        self._small = self._agree(rendezvous, f"millrace-{Path(store).name}")
        self.least(0)  # the file has done its work

    def give_up(self) -> None:
        """Close the connections: other shards' collectives fail, those that wait included.

        RACE: gloo's thread lets go of a collective's tensors after the main thread has seen it end,
        and needs the interpreter for that. It has ended when this returns; one that is left to an
        interpreter that ends may abort the process.
        """
        self._process_group = None
        self._small = None

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """As ``Sharding.add_up``."""
        if self._small is not None and self._small.takes(tensor):
            return self._small(tensor)
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

    def tell(self, tensor: torch.Tensor) -> torch.Tensor:
        """The first shard's tensor, in place of those of the others; contiguous, of one shape."""
        self._process_group.broadcast([tensor], self._tell).wait()
        return tensor

    def least(self, number: int) -> int:
        """The least of all shards' numbers."""
        tensor = torch.tensor([number], dtype=torch.int64, device=self._device)
        self._process_group.allreduce([tensor], self._minimum).wait()
        return int(tensor.item())

    def _agree(self, store: Any, name: str) -> SmallSum | None:
        """A shorter way for small sums, if every shard has it and it adds up.

        Each step is one that no shard waits in for another, or that all have come to.
        """
        made: list[SmallSum] = []

        def look() -> str:
            return self._obstacle(self._rank, self._size, self._device)

        def make() -> str:
            made.append(self._make_small(self._rank, self._size, self._device, store, name))
            return ""

        def try_it() -> str:
            made[0].meet()
            return "" if self._adds_up(made[0]) else "its sum is wrong"

        level = logging.DEBUG if self._device.type == "cpu" else logging.INFO
        for step in (look, make, try_it):
            try:
                reason = step()
            except (RuntimeError, ImportError, AttributeError, TypeError) as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if not self.least(int(not reason)):
                reason = reason or "another shard cannot"
                _log.log(level, "small sums of shards go the way of large ones: %s", reason)
                return None
        _log.log(level, "small sums of shards go through memory that all of them read")
        return made[0]

    def _adds_up(self, small: SmallSum) -> bool:
        """1 + 2 + … of a tensor that it takes."""
        part = torch.full((64,), self._rank + 1.0, dtype=torch.float32, device=self._device)
        wanted = self._size * (self._size + 1) / 2
        return small.takes(part) and bool((small(part) == wanted).all().item())
