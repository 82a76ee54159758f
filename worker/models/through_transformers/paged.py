"""Tier "paged through transformers": a class's modeling code over our paged cache.

Runs in the worker. All tokens of a step go through the class as one row, [1, T], with their
positions; its attention function is ours (``paging``), which knows the sequences. So batching,
chunks and cached prefixes are those of the native models. ``examine`` decides who may come here.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.select import Kernels
from worker.layers.layer import Slot
from worker.models.model import Model
from worker.models.through_transformers.adapter import Adapter
from worker.models.through_transformers.calls import (
    ERRORS,
    AttentionCall,
    NotPaged,
    Recorder,
)
from worker.models.through_transformers.configuration import ForeignConfiguration, weights_of
from worker.models.through_transformers.paging import (
    PAGED,
    RECORDED,
    Paging,
    hand_out,
    register,
)


class PagedModel(Model):
    """One class of transformers with our attention."""

    runs_ahead = True
    configuration: ForeignConfiguration

    def __init__(
        self, configuration: ForeignConfiguration, adapter: Adapter, paging: Paging
    ) -> None:
        super().__init__(configuration)
        self._adapter = adapter
        self._paging = paging

    @property
    def attention_capturable(self) -> bool:
        """As ``Model.capturable``, of attention alone; ``examine`` tries the rest."""
        return self._paging.capturable

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As ``Layer.slots``."""
        return weights_of(self._adapter.model, path)

    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``Model.forward``; logits instead of hidden rows where the adapter runs the whole."""
        self._paging.begin(inputs, cache)
        try:
            return self._adapter.rows(packed(inputs), inputs.logit_rows)
        finally:
            self._paging.end()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As ``Model.logits``."""
        return self._adapter.logits(hidden)


def packed(inputs: StepInputs) -> dict[str, Any]:
    """A step as the arguments of a class's forward: one row of tokens and positions."""
    return {
        "input_ids": inputs.token_ids[None],
        "position_ids": inputs.positions[None],
        "use_cache": False,
    }


def record(model: Any, ids: torch.Tensor) -> list[AttentionCall]:
    """The calls of a forward pass over ids [1, T]. Raises NotPaged."""
    register()
    if not model._supports_attention_backend or not model._can_set_attn_implementation():
        raise NotPaged("it takes no attention function")
    model.set_attn_implementation(RECORDED)
    recorder = Recorder()
    hand_out(recorder, model)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    try:
        model(input_ids=ids, position_ids=positions, use_cache=False)
    except ERRORS as error:
        raise NotPaged(f"its attention cannot be replaced ({type(error).__name__})") from error
    if not recorder.calls:
        raise NotPaged("it calls no attention function")
    windows = {call.window for call in recorder.calls}
    for layer in DynamicCache(config=model.config.get_text_config(decoder=True)).layers:
        window = getattr(layer, "sliding_window", None)
        if window is not None and window not in windows:
            raise NotPaged("its own cache forgets more than its masks say")
    return recorder.calls


def make_paged(
    model: Any,
    adapter: Adapter,
    calls: list[AttentionCall],
    kernels: Kernels,
    configuration: ForeignConfiguration,
) -> PagedModel:
    """Put paged attention into a recorded model; ``configuration`` lacks its layers."""
    paging = Paging(calls, kernels)
    hand_out(paging, model)
    model.set_attn_implementation(PAGED)
    return PagedModel(replace(configuration, kv_layers=paging.kv_layers), adapter, paging)
