"""Counts what would make a host wait for its device, on a CPU, where nothing waits.

Every call of torch goes through the two modes. A value that is read (``item``, ``tolist``, ``if``),
a shape that depends on values (``nonzero``, a mask as index) and a copy from memory that is not
pinned (a tensor made from a list) all wait on a GPU. What the transfers do is theirs: they are
asked to count for themselves.
"""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from worker.transfers import HostTransfers

_READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "tensor"}
_READS |= {"as_tensor", "__contains__", "equal", "allclose"}
_SHAPES = {"nonzero", "masked_select", "unique", "unique_consecutive", "bincount", "where_self"}
_VALUES = {"_local_scalar_dense", "_unique2", "repeat_interleave"}
_UNWAITING = {torch.ops.aten.repeat_interleave.self_int}
"""Named as others that wait."""


class _Functions(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        self._found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in _READS:
            self._found[name] += 1
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in _SHAPES | _VALUES and function not in _UNWAITING:
            self._found[name] += 1
        if name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self._found[f"{name} by a mask"] += 1
        return function(*args, **(kwargs or {}))


class Counting:
    """``with counting:`` counts into ``found``."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._modes: list = []

    def __enter__(self) -> "Counting":
        self._modes = [_Functions(self.found), _Operators(self.found)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class CountedTransfers(HostTransfers):
    """Counts transfers; a download is empty until it has been waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads = 0
        self.waits = 0

    def upload(self, arrays):
        self.uploads += 1
        return super().upload(arrays)

    def download(self, tensor):
        return _Waited(self, tensor.clone())


class _Waited:
    def __init__(self, transfers: CountedTransfers, tensor: torch.Tensor) -> None:
        self._transfers = transfers
        self._tensor = tensor

    def read(self) -> torch.Tensor:
        self._transfers.waits += 1
        return self._tensor
