"""What every model of the registry offers to the engine and to the loader."""

from abc import ABC, abstractmethod

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.layers.layer import Layer
from worker.models.configuration import ModelConfiguration


class Model(Layer, ABC):
    """A decoder. Declared, then filled by the loader, then used."""

    def __init__(self, configuration: ModelConfiguration) -> None:
        self.configuration = configuration

    @abstractmethod
    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """Writes keys and values; hidden rows after the final norm, of ``inputs.logit_rows`` only.

        Returns [R, hidden] in the model's dtype. Under ``torch.inference_mode``.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden rows [R, hidden] to a new tensor [R, vocabulary] float32."""

    def declared(self, key: str) -> str:
        """The declaration's name of a checkpoint's tensor, where older checkpoints have another."""
        return key

    def is_needless(self, key: str) -> bool:
        """True for tensors (by their declared names) that may be there and are not needed."""
        return False

    def finish(self) -> None:
        """Called once, after the last tensor has been filled in."""
