"""What small sums ask of torch's symmetric memory; that it adds up is seen on two GPUs only."""

from pathlib import Path
from typing import Any

import pytest
import torch

from worker.parallel.one_shot import OneShot

RANK, SIZE, NAME = 1, 4, "millrace-store"
SHARE_BYTES = 1 << 19


class Memory:
    """As ``_SymmetricMemory``, which has no devices here."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def set_group_info(self, name: str, rank: int, size: int, store: Any) -> None:
        store.set("key", name)
        self.asked.append(("group", name, rank, size))

    def empty_strided_p2p(self, shape: Any, stride: Any, dtype: torch.dtype, place: Any) -> Any:
        self.asked.append(("memory", shape, stride, dtype, place))
        return torch.empty(shape, dtype=dtype)

    def rendezvous(self, buffer: torch.Tensor, name: str) -> None:
        self.asked.append(("met", buffer.data_ptr(), name))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()
    monkeypatch.setattr("torch._C._distributed_c10d._SymmetricMemory", made)
    return made


def store_in(path: Path) -> Any:
    untyped: Any = torch.distributed
    return untyped.FileStore(str(path / "store"), 1)


@pytest.mark.parametrize("place", ["cuda:2", "cuda"])
def test_shards_meet_over_memory_of_their_own_gpu(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    store = store_in(tmp_path)
    small = OneShot(RANK, SIZE, torch.device(place), store, NAME)
    small.meet()
    gpu = torch.device("cuda", 2 if place == "cuda:2" else 3)
    assert memory.asked == [
        ("group", NAME, RANK, SIZE),
        ("memory", (SHARE_BYTES,), (1,), torch.uint8, gpu),
        ("met", small._buffer.data_ptr(), NAME),
    ]
    assert store.check(["symmetric/key"])  # apart from what the group keeps there


def test_a_sum_is_asked_for_where_all_can_read(tmp_path: Path, memory: Memory) -> None:
    small = OneShot(RANK, SIZE, torch.device("cuda:0"), store_in(tmp_path), NAME)
    part = torch.arange(24, dtype=torch.bfloat16).view(3, 8)
    asked: list[Any] = []

    def add_up(place: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked[:] = place, rest
        return part + 1

    small._add_up = add_up
    assert torch.equal(small(part), part + 1)
    place, rest = asked
    assert place.data_ptr() == small._buffer.data_ptr()
    assert (place.dtype, place.shape) == (part.dtype, part.shape)
    assert rest == (part, "sum", NAME)


@pytest.mark.parametrize(
    ("dtype", "numbers", "taken"),
    [
        (torch.bfloat16, SHARE_BYTES // 2, True),
        (torch.bfloat16, SHARE_BYTES // 2 + 8, False),
        (torch.float32, SHARE_BYTES // 4, True),
        (torch.float32, SHARE_BYTES // 4 + 4, False),
        (torch.float32, 3, False),
        (torch.float16, 64, False),
        (torch.int32, 64, False),
    ],
)
def test_what_is_taken(
    tmp_path: Path, memory: Memory, dtype: torch.dtype, numbers: int, taken: bool
) -> None:
    small = OneShot(RANK, SIZE, torch.device("cuda:0"), store_in(tmp_path), NAME)
    assert small.takes(torch.empty(numbers, dtype=dtype)) == taken
