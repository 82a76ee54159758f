"""What every model of the registry offers to the engine and to the loader."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch

from worker.cache import CacheShape, KVCache
from worker.inputs import StepInputs
from worker.interfaces import AdapterPlans
from worker.kernels.reference.attention import KVScales
from worker.layers.layer import Layer


class Served(CacheShape, Protocol):
    """What whoever serves a model reads of its configuration."""

    @property
    def architecture(self) -> str:
        """Its name in ``architectures`` of config.json."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def max_position_embeddings(self) -> int:
        """The longest sequence that is computed as it is meant."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""


class Model(Layer, ABC):
    """A decoder. Declared, then filled by the loader, then used."""

    shares_prefixes = True
    """Whether the keys and values of a prefix can be used by other sequences."""

    reads_whole = False
    """Whether a step may read more tokens of a prompt than its inputs say, up to all of them."""

    rolls_back = True
    """Whether a sequence's latest tokens may be computed once more, with others in their place, as
    drafts that were wrong are."""

    runs_ahead = False
    """Whether ``forward`` needs nothing of a step's tokens on the host, and may be launched before
    they are known there."""

    renamed: Mapping[str, str] = MappingProxyType({})
    """Parts of a checkpoint's names, and what the declaration calls them."""

    def __init__(self, configuration: Served) -> None:
        self.configuration = configuration
        self.kv_dtype: torch.dtype | None = None
        """What keys and values are cached in where it is not the model's dtype: the loader's."""
        self.kv_scales: Sequence[KVScales] = ()
        """Of each layer of such a cache, where they are not 1: the loader's, too."""
        self.quantization = ""
        """What its weights are where they are codes, for people: the loader's."""
        self.weights_bytes: int | None = None
        """What its weights take, where the loader knows better than their numbers and its dtype."""
        self.recording_fault = ""
        """What was wrong where recording was tried: the loader's, and that of the start."""

    @property
    def why_not_recorded(self) -> str:
        """Why ``forward`` cannot be recorded once, of decoding sequences alone, and replayed.

        Empty: it can. Its shapes, and what it does, then depend on the number of sequences and on
        nothing else.
        """
        return self.recording_fault

    @property
    def capturable(self) -> bool:
        """Whether it can."""
        return not self.why_not_recorded

    @property
    def adapters(self) -> AdapterPlans | None:
        """Tell the device who has which of its adapters; None: it has none."""
        return None

    @property
    def cache_dtype(self) -> torch.dtype:
        """What keys and values are cached in."""
        return self.kv_dtype or self.configuration.dtype

    def make_cache(self, shape: CacheShape, blocks: int, device: torch.device) -> KVCache:
        """Of so many blocks; ``shape`` is the configuration's, or a shard's part of it."""
        return KVCache(shape, blocks, device, self.cache_dtype, self.kv_scales)

    @property
    def block_bytes(self) -> int:
        """What a KV block takes."""
        return KVCache.bytes_per_block(self.configuration, self.cache_dtype)

    @property
    def sequence_bytes(self) -> int:
        """What it keeps of a sequence beside KV blocks, whatever the sequence's length."""
        return 0

    def release(self, sequence: int) -> None:
        """A sequence (a number of ``inputs.sequences_host``) has ended or begins anew."""

    @abstractmethod
    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """Writes keys and values; hidden rows after the final norm, of ``inputs.logit_rows`` only.

        Returns [R, hidden] in the model's dtype. Under ``torch.inference_mode``.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden rows [R, hidden] to a new tensor [R, vocabulary] float32."""

    def declared(self, key: str) -> str:
        """The declaration's name of a checkpoint's tensor, where checkpoints have another."""
        for old, new in self.renamed.items():
            key = key.replace(old, new)
        return key

    def names_in(self, keys: Collection[str]) -> Callable[[str], str]:
        """From the declaration's names to those of a checkpoint with these keys, for people.

        What is missing has a name all the same: the checkpoint may use some of the declaration's.
        """
        turned = [
            (new, old) for old, new in self.renamed.items() if not any(new in key for key in keys)
        ]

        def name(key: str) -> str:
            for new, old in turned:
                key = key.replace(new, old)
            return key

        return name

    def is_needless(self, key: str) -> bool:
        """True for tensors (by their declared names) that may be there and are not needed."""
        return False

    @property
    def tied(self) -> tuple[str, str] | None:
        """Keys of the embedding and of the output layer, which are to be one tensor; None: two."""
        return None

    def untie(self) -> None:
        """They are two, after all: before any slot is asked for."""

    def finish(self) -> None:
        """Called once, after the last tensor has been filled in."""
