"""From files into slots: the right parts, with progress, and errors that name the tensor."""

import logging
import os
from itertools import count
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import save_file

from common.errors import StartupError
from worker.filling import Stored, _touch, fill
from worker.layers.layer import Slot
from worker.sharding import Cut

TENSORS = {
    "a": torch.arange(24.0).view(6, 4),
    "b": torch.arange(24.0, 48.0).view(6, 4),
    "c": torch.arange(60.0).view(3, 5, 4),
}


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Stored]:
    made = {}
    for name, tensor in TENSORS.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({name: tensor}, path)
        made[name] = Stored(path, name, tuple(tensor.shape), "F32")
    return made


def slots(**cuts: Cut | None) -> tuple[dict[str, Slot], dict[str, torch.Tensor]]:
    filled: dict[str, torch.Tensor] = {}
    made = {
        name: Slot(
            name,
            tuple(TENSORS[name].shape),
            lambda tensor, name=name: filled.update({name: tensor.clone()}),  # type: ignore[misc]
            cut=cut,
        )
        for name, cut in cuts.items()
    }
    return made, filled


def test_whole_tensors_and_parts_of_them(stored: dict[str, Stored]) -> None:
    wanted, filled = slots(a=None, b=Cut(0, ((1, 2), (4, 6))), c=Cut(2, ((1, 3),)))
    fill(wanted, stored)
    assert torch.equal(filled["a"], TENSORS["a"])
    assert torch.equal(filled["b"], TENSORS["b"][[1, 4, 5]])
    assert torch.equal(filled["c"], TENSORS["c"][:, :, 1:3])
    assert {name: tuple(filled[name].shape) for name in wanted} == {
        name: slot.own_shape for name, slot in wanted.items()
    }


def test_progress_is_said_now_and_then(
    stored: dict[str, Stored], caplog: pytest.LogCaptureFixture
) -> None:
    wanted, _ = slots(a=None, b=None, c=None)
    seconds = count(0.0, 1.5)
    with caplog.at_level(logging.INFO):
        fill(wanted, stored, clock=lambda: next(seconds))
    assert [record.message for record in caplog.records] == [
        "loading weights: 66 % (2 of 3 tensors, 3 s)",
        "loaded 3 tensors of 3 file(s) in 4.5 s",
    ]


def test_the_tensor_that_does_not_fit_is_named(stored: dict[str, Stored]) -> None:
    def refuse(tensor: torch.Tensor) -> None:
        raise MemoryError

    wanted, _ = slots(a=None)
    wanted["b"] = Slot("b", (6, 4), refuse)
    with pytest.raises(StartupError, match=r"no memory for the tensor b of b\.safetensors"):
        fill(wanted, stored)


def test_the_tensor_that_cannot_be_read_is_named(stored: dict[str, Stored]) -> None:
    wanted, _ = slots(a=None)
    stored["a"] = Stored(stored["b"].file, "a", (6, 4), "F32")
    with pytest.raises(StartupError, match=r"the tensor a of .*b\.safetensors cannot be read"):
        fill(wanted, stored)


def test_reading_ahead_stops_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    read: list[int] = []
    monkeypatch.setattr("worker.filling._is_cached", lambda *_: False)
    monkeypatch.setattr(os, "preadv", lambda _, buffers, offset: read.append(offset))
    enough = Event()
    _touch(path, enough)
    assert read == [0, 1 << 20, 2 << 20]
    enough.set()
    _touch(path, enough)
    assert len(read) == 3
