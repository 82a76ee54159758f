"""Scales of keys and values that are cached in 8 bits: those that a checkpoint brings, if it does.

Runs in the worker, once, at load. One number for the keys and one for the values of a layer, named
``k_scale`` and ``v_scale`` (or ``kv_scale`` for both) somewhere below it, as quantizers write them:
what is stored times the scale is what is meant. They say nothing of a cache in the model's dtype.
"""

import logging
import math
import re
from collections.abc import Mapping

import torch

from common.errors import StartupError
from worker.filling import Stored, opened
from worker.kernels.reference.attention import KVScales

_KEY = re.compile(r"(?:.*\.)?layers\.(\d+)\.(?:.+\.)?(k|v|kv)_scale")

_log = logging.getLogger(__name__)


def is_scale(key: str) -> bool:
    """Whether a checkpoint's tensor of this name is one."""
    return _KEY.fullmatch(key) is not None


def read_scales(
    stored: Mapping[str, Stored], layers: int, dtype: torch.dtype
) -> tuple[KVScales, ...]:
    """Of each layer of a cache of this dtype. Raises StartupError for what is no scale.

    ``stored``: the tensors that ``is_scale`` knows; a layer without any has 1.
    """
    keys, values = [1.0] * layers, [1.0] * layers
    scaled: set[int] = set()
    for name, tensor in stored.items():
        match = _KEY.fullmatch(name)
        assert match is not None
        layer, kind = int(match[1]), match[2]
        if layer >= layers:
            raise StartupError(f"{name} of the checkpoint is of a layer that the model lacks")
        scale = _read(tensor)
        scaled.add(layer)
        if "k" in kind:
            keys[layer] = scale
        if "v" in kind:
            values[layer] = scale
    if scaled:
        _log.info(
            "keys and values of %d of %d layers are scaled as the checkpoint says",
            len(scaled),
            layers,
        )
    else:
        _log.warning(
            "the checkpoint brings no scales for keys and values in 8 bits: 1 is used, and what"
            " lies beyond ±%g is clamped",
            torch.finfo(dtype).max,
        )
    return tuple(KVScales(key, value) for key, value in zip(keys, values, strict=True))


def _read(stored: Stored) -> float:
    """One positive number."""
    if math.prod(stored.shape) != 1:
        raise StartupError(
            f"{stored.key} in {stored.file.name} has the shape {list(stored.shape)}: only one scale"
            " for all heads of a layer is supported; leave out --kv-cache-dtype"
        )
    with opened(stored.file) as file:
        scale = float(file.get_tensor(stored.key).float().item())
    if not (math.isfinite(scale) and scale > 0):
        raise StartupError(f"{stored.key} in {stored.file.name} is {scale}: no scale")
    return scale
