"""One class of transformers, seen as the engine sees a model: hidden rows, and logits of rows.

Runs in the worker. The decoder runs for itself, so that the output layer sees only the rows that
are wanted; then the class's own ``forward`` turns those into logits, with its scaling, caps and
casts, over a stand-in for its decoder. Where that changes results (``fits`` says so), ``forward``
runs as a whole and its logits are the rows. Knows nothing of steps or caches.
"""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils.generic import ModelOutput

from worker.models.through_transformers.calls import ERRORS

_TOLERANCE = 1e-2
"""Of logits, relative to their spread: low precision rounds differently in other shapes."""


@dataclass
class _Outputs(ModelOutput):
    """What a decoder returns: the hidden rows, and None for whatever else a class may look for."""

    last_hidden_state: torch.Tensor

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Decoded(nn.Module):
    """Stands where the decoder was: gives back the embeddings that it is given."""

    def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> _Outputs:
        """[1, R, hidden], as it came."""
        return _Outputs(last_hidden_state=inputs_embeds)


class Adapter:
    """Runs one model, whole or in two parts."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.split = model.base_model is not model
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters
        if self.split:
            # The same modules and weights under another root, with the decoder replaced.
            self._head = copy.copy(model)
            self._head._modules = {**model._modules, model.base_model_prefix: _Decoded()}

    def rows(self, inputs: Mapping[str, Any], rows: torch.Tensor) -> torch.Tensor:
        """A forward pass over ``inputs`` ([1, T]): rows [R, …] that ``logits`` takes."""
        if self.split:
            hidden: torch.Tensor = self.model.base_model(**inputs)[0]
            return hidden[0].index_select(0, rows)
        if self._keeps_rows:
            logits: torch.Tensor = self.model(**inputs, logits_to_keep=rows).logits
            return logits[0]
        logits = self.model(**inputs).logits
        return logits[0].index_select(0, rows)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, …] to a new tensor [R, vocabulary] float32."""
        if not self.split:
            return rows.to(torch.float32, copy=True)
        logits: torch.Tensor = self._head(inputs_embeds=rows[None], use_cache=False).logits
        return logits[0].to(torch.float32, copy=logits.dtype == torch.float32)

    def settle(self, inputs: Mapping[str, Any], whole: torch.Tensor) -> None:
        """Give up running in two parts if that does not give the ``whole`` logits [T, …]."""
        if not self.split:
            return
        try:
            parts = self.logits(self.rows(inputs, torch.arange(len(whole), device=whole.device)))
            same = parts.shape == whole.shape and close(parts, whole, _TOLERANCE)
        except ERRORS:
            same = False
        self.split = same


def close(rows: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> bool:
    """Whether no row differs from the wanted one by more than so much of that one's spread."""
    difference = (rows - wanted).abs().amax(-1)
    return bool((difference <= tolerance * wanted.std(-1).clamp_min(1e-6)).all())
