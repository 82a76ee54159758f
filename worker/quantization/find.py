"""Which tensors of a checkpoint stand for which matrices: found, and checked, before one is read.

Runs in the worker, once. Between a format, which knows tensors by what they are called beside each
other, and the loader, which knows slots and files. Errors are StartupErrors that name the tensor.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from common.errors import StartupError
from worker.filling import Coded, Stored, opened
from worker.layers.layer import Slot
from worker.quantization.at_load import AtLoad
from worker.quantization.format import Expected, Format, Header

_WEIGHT = ".weight"
_BIAS = "bias"
"""Some quantizers write biases of zeros for matrices that have none."""
_BYTES = {"I64": 8, "I32": 4, "F32": 4, "F16": 2, "BF16": 2}
"""Of a number; 1 of others."""


@dataclass(frozen=True, slots=True)
class Found:
    """Matrices of a checkpoint that are codes."""

    coded: Mapping[str, Coded]
    """By the key of their slot."""
    used: frozenset[str]
    """Keys of all tensors that stand for them, or are not needed beside them."""


NOTHING = Found({}, frozenset())
"""Of a checkpoint that is not quantized."""


def find_codes(
    slots: Mapping[str, Slot],
    stored: Mapping[str, Stored],
    kind: Format,
    name_of: Callable[[str], str],
) -> Found:
    """What of ``stored`` is codes, by its declared keys. Raises StartupError.

    ``name_of``: what the checkpoint has or would have for a declared key.
    """
    wanted = {
        key.removesuffix(_WEIGHT): matrix
        for key, slot in slots.items()
        if (matrix := slot.for_codes) is not None
    }
    beside = _beside(wanted, stored)
    coded: dict[str, Coded] = {}
    used: set[str] = set()
    for stem, names in beside.items():
        slot = wanted[stem]
        matrix_name = name_of(f"{stem}{_WEIGHT}").removesuffix(_WEIGHT)
        shape = slot.shape[0], slot.shape[1]
        headers = {name: Header(part.shape, part.dtype) for name, part in names.items()}
        try:
            expected = kind.expected(shape, headers, slot.matrices)
        except StartupError as error:
            raise StartupError(f"{matrix_name}: {error}") from None
        if expected is None:
            continue
        for name, what in expected.items():
            _check(name_of(f"{stem}.{name}"), names.get(name), what)
        tensors = {name: names[name] for name in expected}
        coded[slot.key] = Coded(
            matrix_name, partial(kind.read, shape), tensors, names[next(iter(expected))].file
        )
        used |= {f"{stem}.{name}" for name in names if name in expected or kind.needless(name)}
        if f"{stem}.{_BIAS}" not in slots and _BIAS in names and _is_zero(names[_BIAS]):
            used.add(f"{stem}.{_BIAS}")
    return Found(coded, frozenset(used))


def weights_bytes(
    slots: Iterable[Slot], found: Found, at_load: AtLoad | None, dtype: torch.dtype
) -> int:
    """What all weights will take, about."""
    total = 0.0
    for slot in slots:
        numbers = math.prod(slot.shape)
        coded = found.coded.get(slot.key)
        if coded is not None:
            total += sum(
                math.prod(part.shape) * _BYTES.get(part.dtype, 1) for part in coded.tensors.values()
            )
        elif at_load is not None and slot.for_codes is not None:
            total += numbers * at_load.bits / 8
        else:
            total += numbers * dtype.itemsize
    return int(total)


def _beside(
    wanted: Mapping[str, Slot], stored: Mapping[str, Stored]
) -> dict[str, dict[str, Stored]]:
    """The tensors under the name of each matrix, by the rest of their names."""
    beside: dict[str, dict[str, Stored]] = {}
    for key, part in stored.items():
        stem, _, name = key.rpartition(".")
        while stem and stem not in wanted:
            stem, _, more = stem.rpartition(".")
            name = f"{more}.{name}"
        if stem:
            beside.setdefault(stem, {})[name] = part
    return beside


def _is_zero(part: Stored) -> bool:
    with opened(part.file) as file:
        return not bool(file.get_tensor(part.key).any())


def _check(key: str, found: Stored | None, expected: Expected) -> None:
    if found is None:
        raise StartupError(f"the checkpoint lacks the tensor {key}, which quantized weights need")
    if expected.shapes and found.shape not in expected.shapes:
        wanted = " or ".join(str(list(shape)) for shape in expected.shapes)
        raise StartupError(
            f"{key} in {found.file.name} has the shape {list(found.shape)}, and not {wanted}, as"
            " config.json and its quantization_config ask for"
        )
    if found.dtype not in expected.dtypes:
        raise StartupError(
            f"{key} in {found.file.name} is of type {found.dtype}, and not"
            f" {' or '.join(expected.dtypes)}"
        )
