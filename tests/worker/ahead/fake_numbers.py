"""What the host does with numbers, for a device whose tensors have none (``fake_gpu``).

Where the host looks at what it has read from files, it does so as ever, and the device gets the
shapes. Where it looks at what the device has computed, it finds something that could be.
"""

from concurrent.futures import Future
from dataclasses import replace

import torch
from safetensors import safe_open
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from worker import filling, sampler
from worker.guide import Guide
from worker.kernels.reference import quantized as reference
from worker.kernels.reference.quantized import Quantized
from worker.kernels.triton import coded_experts, quantized
from worker.lora import attach
from worker.lora.checkpoint import AdapterFiles
from worker.masks import MaskMaker, Pending
from worker.quantization import at_load
from worker.watermark import GreenLists


def replace_numbers(monkeypatch) -> None:
    """Weights and pairs have the shapes that their files say, green lists those of the vocabulary;
    a mask allows what is chosen, and of the most likely tokens there are as many as are asked for.
    """
    fill_codes = filling._fill_codes

    def filled(slot, file, found):
        held: list[Quantized] = []
        with _disable_current_modes():  # codes are checked, cut and put together as they are
            fill_codes(_Held(slot, held), file, found)
        names = ("codes", "scales", "offsets", "levels", "order")
        parts = {name: getattr(held[0], name) for name in names}
        made = {
            name: None if part is None else torch.empty(part.shape, dtype=part.dtype)
            for name, part in parts.items()
        }
        slot.fill(replace(held[0], **made))

    monkeypatch.setattr(filling, "_part", lambda slot, file, key: torch.empty(slot.own_shape))
    monkeypatch.setattr(filling, "_fill_codes", filled)
    monkeypatch.setattr(AdapterFiles, "read", _pair)
    monkeypatch.setattr(attach, "_are_finite", lambda tensors: True)
    monkeypatch.setattr(GreenLists, "after", _lists)
    monkeypatch.setattr(MaskMaker, "begin", _masks)
    monkeypatch.setattr(Guide, "take", lambda guide, token: True)
    monkeypatch.setattr(sampler, "_tops", tops)
    for module in (quantized, coded_experts):
        monkeypatch.setattr(module, "kind_of", lambda levels: quantized.Levels.WHOLE)
    for module in (reference, coded_experts):
        monkeypatch.setattr(module, "alike", lambda one, other: one.coding is other.coding)
    monkeypatch.setattr(at_load, "_scales", lambda weight, most: weight.amax(-1, keepdim=True))


class _Held:
    """A slot that keeps what it is given."""

    def __init__(self, slot, held) -> None:
        self.key, self.cut, self.fill = slot.key, slot.cut, held.append


def _pair(files, pair):
    with _disable_current_modes(), safe_open(files._path, framework="pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in pair.keys]
    return [torch.empty(shape) for shape in shapes]


def _lists(lists: GreenLists, last_ids) -> torch.Tensor:
    return torch.empty((len(last_ids), lists._width), dtype=torch.int32)


def _masks(maker: MaskMaker, followers) -> Pending:
    done: Future[None] = Future()
    done.set_result(None)
    words = torch.empty((len(followers), maker._width), dtype=torch.int32)
    return Pending(words, done, maker._device)


def tops(asked, batch):
    """As ``sampler._tops``, which counts numbers."""
    assert asked.device.type == "cuda"
    wanted = [batch.rows[number].parameters.top_n_tokens for number in batch.top_rows]
    return [[(token, -1.0) for token in range(count)] for count in wanted]


class Counts(TorchFunctionMode):
    """How many there are of each number, where nobody knows the numbers: as many of each.

    ``asked``: how often the host has waited for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.Tensor.bincount or args[0].device.type == "cpu":
            return function(*args, **(kwargs or {}))
        self.asked += 1
        return _Evenly(args[0].numel(), (kwargs or {})["minlength"])


class _Evenly:
    def __init__(self, total: int, kinds: int) -> None:
        self._total, self._kinds = total, kinds

    def tolist(self) -> list[int]:
        return [(self._total + kind) // self._kinds for kind in range(self._kinds)]
