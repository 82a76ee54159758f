"""What shards agree on when they meet: who adds up small sums. Two shards, each on a thread."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from worker.parallel.group import Group
from worker.parallel.one_shot import fits, obstacle

CPU = torch.device("cpu")
LIMIT_S = 60
MOST_BYTES = 1024


class Board:
    """As ``OneShot``: each puts its part where the others can read it."""

    fails_in = -1
    wrong_in = -1
    where = "make"
    error: Exception = RuntimeError("no memory that others can read\nand more")

    def __init__(self, rank: int, size: int, device: torch.device, store: Any, name: str) -> None:
        self.rank, self.size, self.store, self.name = rank, size, store, name
        self.calls = 0
        if self.fails_in == rank and self.where == "make":
            raise self.error

    def meet(self) -> None:
        if self.fails_in == self.rank and self.where == "meet":
            raise RuntimeError("nobody came")

    def takes(self, tensor: torch.Tensor) -> bool:
        return tensor.dtype == torch.float32 and fits(tensor.nbytes, MOST_BYTES)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        keys = [f"{self.name}-{self.calls}-{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], tensor.numpy().tobytes())
        parts = [np.frombuffer(self.store.get(key), dtype=np.float32) for key in keys]
        total = torch.from_numpy(np.sum(parts, axis=0)).view(tensor.shape)
        total[..., -1] += self.wrong_in == self.rank
        return total


def board(**changes: Any) -> type[Board]:
    return type("Board", (Board,), changes)


def together(
    path: Path,
    act: Callable[[Group, int], Any],
    make_small: Any,
    hindered: int = -1,
) -> list[Any]:
    """What two shards get from ``act``, in their order."""
    found: dict[int, Any] = {}

    def run(rank: int) -> None:
        group = Group(
            rank, 2, CPU, make_small=make_small,
            obstacle=lambda rank, *_: "too far away" if rank == hindered else "",
        )  # fmt: skip
        group.form(str(path / "store"))
        found[rank] = act(group, rank)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    return [found[rank] for rank in range(2)]


def sums(group: Group, rank: int) -> tuple[Any, int]:
    """Of a small tensor, a large one, one of odd length and one of another type."""
    tensors = [torch.full((count,), rank + 2.0) for count in (64, 1000, 3)]
    tensors.append(torch.full((8,), rank + 2, dtype=torch.int64))
    totals = [group.add_up(tensor.clone()) for tensor in tensors]
    for tensor, total in zip(tensors, totals, strict=True):
        assert total.shape == tensor.shape
        assert total.dtype == tensor.dtype
        assert (total == 5).all()
    small = group._small
    assert small is None or (isinstance(small, Board) and small.name == "millrace-store")
    return type(small), 0 if small is None else small.calls


def test_small_sums_go_their_way_and_others_do_not(tmp_path: Path) -> None:
    made = board()
    # One to see that it adds up, one for the small tensor.
    assert together(tmp_path, sums, made) == [(made, 2), (made, 2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "changes", [{"where": "make"}, {"where": "meet"}, {"wrong": True}, {"hindered": True}]
)
def test_all_do_without_if_one_cannot(tmp_path: Path, rank: int, changes: dict[str, Any]) -> None:
    made, hindered = board(), -1
    if "where" in changes:
        made = board(fails_in=rank, where=changes["where"])
    elif "wrong" in changes:
        made = board(wrong_in=rank)
    else:
        hindered = rank
    if changes.get("where") == "meet":  # whoever meets nobody is alone: nobody waits for a sum
        made = board(fails_in=rank, where="meet", __call__=lambda self, part: part * 0 + 3)
    none = (type(None), 0)
    assert together(tmp_path, sums, made, hindered) == [none, none]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Board.error, "no memory that others can read"),
        (ImportError("no such module"), "no such module"),
        (AttributeError("no such operator"), "no such operator"),
        (TypeError(), "TypeError"),
    ],
)
def test_what_is_missing_is_a_reason_to_do_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    caplog.set_level("DEBUG", logger="worker.parallel.group")
    none = (type(None), 0)
    assert together(tmp_path, sums, board(fails_in=1, error=error)) == [none, none]
    way = "small sums of shards go the way of large ones: "
    assert sorted(caplog.messages) == sorted([f"{way}{said}", f"{way}another shard cannot"])


def test_columns_of_all_shards_are_put_side_by_side(tmp_path: Path) -> None:
    """Also those that do not lie so in memory; the first shard alone has them all."""

    def gather(group: Group, rank: int) -> torch.Tensor:
        numbers = torch.arange(6).view(3, 2) + 10 * rank
        return group.sharding.gather(numbers.T)

    whole, _ = together(tmp_path, gather, board())
    assert whole.tolist() == [[0, 2, 4, 10, 12, 14], [1, 3, 5, 11, 13, 15]]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_gathered_lies_in_one_piece_and_is_waited_for(rank: int) -> None:
    """As NCCL has it; gloo does without."""
    events: list[str] = []

    def gather(parts: Any, tensors: Any, options: Any) -> Any:
        (columns,) = tensors
        assert columns.is_contiguous()
        assert [[part.shape for part in own] for own in parts] == [[columns.shape] * 2][rank:]
        events.append("asked")
        return SimpleNamespace(wait=lambda: events.append("waited"))

    group = Group(rank, 2, CPU)
    group._process_group = SimpleNamespace(gather=gather)
    group.gather(torch.zeros(3, 2).T)
    assert events == ["asked", "waited"]


def test_nobody_from_elsewhere_reaches_a_group(tmp_path: Path) -> None:
    group = Group(0, 1, CPU)
    group.form(str(tmp_path / "store"))
    own = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    listening = [
        address
        for table in Path("/proc/self/net").glob("tcp*")
        for line in table.read_text().splitlines()[1:]
        for _, address, _, state, *_, inode in [line.split()[:10]]
        if state == "0A" and f"socket:[{inode}]" in own
    ]
    group.give_up()
    assert listening
    assert all(address.startswith("0100007F:") for address in listening)


def test_the_first_shard_tells_the_others(tmp_path: Path) -> None:
    def tell(group: Group, rank: int) -> list[int]:
        return group.tell(torch.arange(3) + 10 * rank).tolist()

    assert together(tmp_path, tell, board()) == [[0, 1, 2], [0, 1, 2]]


def test_nccl_waits_for_those_that_load_and_asks_no_store_whose_file_will_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And its log says how small sums go."""
    caplog.set_level("INFO")
    found: list[Any] = []

    class NCCL:
        Options = SimpleNamespace

        def __init__(self, store: Any, rank: int, size: int, options: Any) -> None:
            found.extend([rank, size, store.timeout, options._timeout])
            found.append(os.environ.get("TORCH_NCCL_DUMP_ON_TIMEOUT"))

    monkeypatch.setattr(torch.distributed, "ProcessGroupNCCL", NCCL, raising=False)
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    monkeypatch.setattr(Group, "least", lambda group, number: number)
    group = Group(0, 1, torch.device("cuda"), obstacle=lambda *_: "none is wanted")
    group.form(str(tmp_path / "store"))
    assert found == [0, 1, timedelta(hours=1), timedelta(hours=1), "0"]
    assert "small sums of shards go the way of large ones: none is wanted" in caplog.messages


def test_no_thread_outlives_a_group_that_is_given_up(tmp_path: Path) -> None:
    """An interpreter that ends beside one of gloo's threads is aborted at times."""

    def threads() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    group = Group(0, 1, CPU)
    before = threads()
    group.form(str(tmp_path / "store"))
    group.add_up(torch.ones(3))
    assert threads() - before  # those of earlier tests come to their end meanwhile
    group.give_up()
    assert threads() <= before


def test_a_gpu_frees_nobody_that_waits_for_another() -> None:
    assert Group(0, 2, CPU).can_form_again
    assert not Group(0, 2, torch.device("cuda")).can_form_again


def test_what_fits() -> None:
    assert fits(4096, 4096)
    assert not fits(4112, 4096)
    assert not fits(24, 4096)
    assert not fits(0, 4096)


def test_a_cpu_has_no_memory_to_read_from_others() -> None:
    assert obstacle(0, 2, CPU) == "shards of a CPU add up over sockets"


def test_gpus_that_do_not_reach_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    reached = {(own, other) for own in range(4) for other in range(4) if other not in (own, 2)}
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *pair: pair in reached)
    for own in ("cuda:1", "cuda"):
        assert obstacle(1, 4, torch.device(own)) == "GPU 1 does not reach the memory of GPU 2"
    assert obstacle(1, 4, torch.device("cuda:0")) == "GPU 0 does not reach the memory of GPU 2"
    assert obstacle(1, 8, torch.device("cuda:1")) == "8 shards are on 4 GPUs"
    reached.add((1, 2))
    assert obstacle(1, 4, torch.device("cuda")) == ""


@pytest.mark.parametrize(
    ("rank", "own", "other"),
    [(0, 0, None), (1, 1, None), (0, 2, 3), (1, 3, 2), (0, 1, 2), (0, 3, None), (1, 0, None)],
)
def test_only_the_gpus_of_the_group_have_to_reach_each_other(
    monkeypatch: pytest.MonkeyPatch, rank: int, own: int, other: int | None
) -> None:
    """Groups of two, which may begin anywhere: all but GPU 2 reach all but GPU 2."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *pair: 2 not in pair)
    words = "" if other is None else f"GPU {own} does not reach the memory of GPU {other}"
    assert obstacle(rank, 2, torch.device("cuda", own)) == words


def test_a_torch_that_has_no_such_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "symm_mem", SimpleNamespace())
    monkeypatch.setattr(torch, "__version__", "2.0")
    assert obstacle(0, 2, torch.device("cuda:0")) == "torch 2.0 has no such operator"
