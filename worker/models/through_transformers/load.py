"""Loads a model that has no declaration of ours, into the better of two tiers.

Runs in the worker, once. Over our paged cache if the class can, else with the cache that it brings;
the second says so, and why, in one line.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from common.errors import StartupError
from worker.cache import KVCache
from worker.kernels.select import Kernels
from worker.models.model import Model
from worker.models.through_transformers.adapter import Adapter
from worker.models.through_transformers.calls import ERRORS, NotPaged
from worker.models.through_transformers.checkpoint import load_weights
from worker.models.through_transformers.classes import context_of
from worker.models.through_transformers.configuration import ForeignConfiguration
from worker.models.through_transformers.examine import (
    BLOCKS,
    LENGTHS,
    alone,
    check_causal,
    check_paged,
    reference,
    why_not_recorded,
)
from worker.models.through_transformers.own_cache import OwnCacheModel
from worker.models.through_transformers.paged import make_paged, record
from worker.models.through_transformers.paging import hand_out

_log = logging.getLogger(__name__)


def load(kind: Any, config: PreTrainedConfig, directory: Path, kernels: Kernels) -> Model:
    """A model of a class, as ``classes.find`` has found both, its weights on the kernels' device.

    Raises StartupError with the reason if not.
    """
    model = load_weights(kind, config, directory, kernels.dtype, kernels.device)
    with torch.inference_mode():
        return place(model, kernels)


def place(model: Any, kernels: Kernels) -> Model:
    """A loaded model in its tier. Raises StartupError if it generates no text by itself."""
    name = type(model).__name__
    ids = _sample(model, kernels.device)
    try:
        wanted = reference(model, ids)
        check_causal(model, ids[1], wanted[1])
        configuration = ForeignConfiguration(
            architecture=name,
            vocab_size=wanted[0].shape[-1],
            max_position_embeddings=context_of(model.config),
            dtype=kernels.dtype,
        )
        return _better(model, configuration, ids, wanted, kernels)
    except ERRORS as error:
        raise StartupError(
            f"transformers cannot generate with {name} alone: {type(error).__name__}: {error}"
        ) from error


def _better(
    model: Any,
    configuration: ForeignConfiguration,
    ids: list[torch.Tensor],
    wanted: list[torch.Tensor],
    kernels: Kernels,
) -> Model:
    """In the paged tier if it can be."""
    own_attention = model.config._attn_implementation
    try:
        adapter = Adapter(model)
        adapter.settle(alone(model, ids[1]), wanted[1])
        calls = record(model, ids[1][None])
        paged = make_paged(model, adapter, calls, kernels, configuration)
        cache = KVCache(paged.configuration, BLOCKS, kernels.device, kernels.dtype)
        check_paged(paged, ids, wanted, cache, kernels.device)
    except NotPaged as verdict:
        _log.warning(
            "%s runs with its own cache, one sequence at a time, which is slow: %s",
            configuration.architecture,
            verdict,
        )
    else:
        _log.info("%s runs through transformers, over the paged cache", configuration.architecture)
        if kernels.device.type == "cuda":
            paged.recording_fault = why_not_recorded(paged, ids, cache, kernels.device)
        return paged
    if model._can_set_attn_implementation():
        model.set_attn_implementation(own_attention)
    hand_out(None, model)
    return OwnCacheModel(configuration, model, ids[1].tolist())


def _sample(model: Any, device: torch.device) -> list[torch.Tensor]:
    """Token ids for the trials: [T] each. None that a configuration gives a meaning to."""
    text = model.config.get_text_config(decoder=True)
    vocabulary = int(text.vocab_size)
    special = {
        value
        for part in (model.config, text)
        for name, value in part.to_dict().items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    plain = [token for token in range(min(vocabulary, 4096)) if token not in special]
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(len(plain), (sum(LENGTHS),), generator=generator)
    ids = torch.tensor(plain)[places].to(device)
    return list(torch.split(ids, list(LENGTHS)))
