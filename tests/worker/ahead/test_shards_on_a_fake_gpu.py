"""Two shards on fake GPUs: both ask for the same sums in the same order, and nobody waits."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common.sockets import TO_FOLLOWER, encode
from tests.worker.adapters import write_adapter
from tests.worker.ahead.fake_gpu import GPU, Copies, FakeTransfers, fake_gpu
from tests.worker.ahead.on_fake_gpu import BLOCKS, SIZES, OnGPU, steps_of
from tests.worker.ahead.waiting import Counting
from tests.worker.models.families import FAMILIES
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.ahead.steps import Steps
from worker.kernels.select import Choices
from worker.loading import load_model
from worker.parallel.follower import Follower
from worker.parallel.group import Group
from worker.parallel.one_shot import OneShot
from worker.parallel.orders import Ahead

MOST_BYTES = 1 << 12
ROWS = 16


class Collectives:
    """A process group that has been asked for these: what, and of which shapes and types."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def allreduce(self, tensors, options):
        return self._done("sum", tensors)

    def broadcast(self, tensors, options):
        return self._done("tell", tensors)

    def gather(self, parts, tensors, options):
        for own in parts:
            assert all(part.shape == tensors[0].shape for part in own)
        return self._done("gather", tensors)

    def _done(self, what, tensors):
        (tensor,) = tensors
        assert tensor.device.type == "cuda"
        assert tensor.is_contiguous()
        self.asked.append((what, tuple(tensor.shape), tensor.dtype))
        return SimpleNamespace(wait=lambda: None)


class Short(OneShot):
    """Memory that all GPUs read, which is there."""

    def __init__(self, collectives: Collectives) -> None:
        self._name, self._most_bytes = "test", MOST_BYTES
        self._buffer = torch.empty(MOST_BYTES, dtype=torch.uint8, device=GPU)
        add_up = torch.ops.symm_mem.one_shot_all_reduce_copy

        def asked(place, tensor, *named):
            assert tensor.is_contiguous()
            collectives._done("short sum", [tensor])
            return add_up(place, tensor, *named)

        self._add_up = asked


class Crew:
    """To the other shard, in this process: as its socket would bring it."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.counting, self.copies = Counting(), Copies()

    def send(self, message) -> None:
        received = TO_FOLLOWER.decode(encode(message))
        with self.counting, self.copies:
            self._follower._go_ahead(received)


def group_of(rank: int, *, short: bool) -> tuple[Group, Collectives]:
    group, collectives = Group(rank, 2, GPU), Collectives()
    group._process_group = collectives
    group._small = Short(collectives) if short else None
    return group, collectives


@pytest.mark.parametrize(
    ("family", "short", "warm", "adapted"),
    [("llama", True, True, False), ("llama", False, True, True), ("olmo2", False, False, False),
     ("gemma2", False, False, False), ("mixtral", True, True, False), ("gpt2", True, False, True)],
)  # fmt: skip
def test_all_shards_ask_for_the_same(family, short, warm, adapted, tmp_path, monkeypatch):
    """Dense families launch what Llama does: what they ask the other shard for is their own."""
    if family == "llama":
        write_tiny_llama(tmp_path, num_hidden_layers=1)
    else:
        write_tiny(tmp_path, FAMILIES[family]())
    adapters = []
    if adapted:
        adapters = [write_adapter(tmp_path / name, tmp_path, rank=3) for name in ("a", "b")]
    with fake_gpu(monkeypatch) as forms, torch.inference_mode():
        group, followed = group_of(1, short=short)
        transfers = FakeTransfers()
        monkeypatch.setattr("worker.parallel.follower.transfers_of", lambda device: transfers)
        part = load_model(
            str(tmp_path), device=GPU, dtype=torch.bfloat16, sharding=group.sharding,
            adapters=adapters,
        )  # fmt: skip
        sizes = SIZES if part.capturable else ()
        steps = partial(Steps, **steps_of(Choices(), ROWS, sizes))
        follower = Follower(part, group, GPU, lambda taken: 0, steps)
        follower._make_cache(BLOCKS)
        crew = Crew(follower)
        leading, led = group_of(0, short=short)
        there = OnGPU(
            tmp_path, monkeypatch, forms, warm=warm, rows=ROWS, others=Ahead(crew, leading),
            sharding=leading.sharding, adapters=adapters,
        )  # fmt: skip
        there.several()
        for number, adapter in enumerate(adapters):
            there.several(3, 6 + 3 * number, adapter=adapter.digest)
            assert there.replayed[-1] == (1, True)
    there.check()
    assert led.asked == followed.asked
    assert {"tell", "gather"} < {what for what, *_ in led.asked}
    assert ("short sum" in {what for what, *_ in led.asked}) == short
    assert transfers.recorded == there.transfers.recorded
    assert transfers.replayed == there.transfers.replayed
    assert not crew.counting.found
    assert set(crew.copies.found) <= {"none"}
