"""What all decoders have in common: a stack of layers, and the output layer behind it.

Runs in the worker. A family brings its layers; most bring nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts, StackOperation
from worker.layers.adapted import StepAdapters
from worker.layers.attention import Attention, Step
from worker.layers.embedding import VocabularyEmbedding
from worker.layers.layer import Layer, Slot
from worker.layers.linear import OutputLinear
from worker.layers.norm import Norm, RMSNorm
from worker.models.configuration import ModelConfiguration
from worker.models.model import Model

_OUTPUT = "lm_head.weight"


class DecoderLayer(Layer, ABC):
    """Attention and feed-forward block, around a residual."""

    @property
    def capturable(self) -> bool:
        """As ``Model.capturable``, but for attention."""
        return True

    @abstractmethod
    def __call__(
        self,
        x: torch.Tensor | None,
        residual: torch.Tensor,
        step: Step,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is to be added to the residual (``x``, the residual itself [T, hidden]), and next.

        ``rows`` [R] int64: only these rows are wanted; after attention the others are dropped.
        """

    def parts(self) -> LayerParts | None:
        """For kernels that run a whole stack; None if the layer cannot be described so."""
        return None


LayerMaker = Callable[[ModelConfiguration, Kernels, Attention, int], DecoderLayer]


class DecoderStack(Layer, ABC):
    """From token ids to the final norm."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        self._attention = Attention(
            kernels,
            configuration.attention,
            configuration.layer_attention,
            sinks=configuration.sinks,
        )
        self._fuse_layers = kernels.fuse_layers
        self._fused: StackOperation | None = None
        self.adapters: StepAdapters | None = None
        """Of the layers, once they have been adapted."""

    @property
    def capturable(self) -> bool:
        """As ``Model.capturable``."""
        layers, _ = self.stack
        return self._attention.kernel.capturable and all(layer.capturable for layer in layers)

    def finish(self) -> None:
        """Once the weights are there: run as one operation if there is one."""
        layers, norm = self.stack
        parts = [layer.parts() for layer in layers]
        self._fused = self._fuse_layers(parts, norm.operations, self._attention.kernel)

    @property
    @abstractmethod
    def stack(self) -> tuple[list[DecoderLayer], Norm]:
        """The layers, and the norm behind them."""

    @property
    @abstractmethod
    def tokens(self) -> VocabularyEmbedding:
        """Of tokens: what a tied output layer shares."""

    @abstractmethod
    def __call__(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """Hidden rows [R, hidden] of ``inputs.logit_rows``."""

    def _run(self, residual: torch.Tensor, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """All layers over the embedded tokens [T, hidden], overwritten."""
        step = self._attention.begin(inputs, cache)
        if inputs.is_adapted and self.adapters is not None:
            with self.adapters.of(inputs):
                return self._run_adapted(residual, inputs, step)
        if self._fused is not None:
            return self._fused(residual, inputs, self._attention.of_stack(step))
        layers, norm = self.stack
        x = None
        for layer in layers[:-1]:
            x, residual = layer(x, residual, step)
        x, residual = layers[-1](x, residual, step, inputs.logit_rows)
        return norm.after_adding(x, residual)

    def _run_adapted(self, residual: torch.Tensor, inputs: StepInputs, step: Step) -> torch.Tensor:
        """Layer by layer, all of them with all rows: whose adapter a row has goes by its place."""
        layers, norm = self.stack
        x, rows = None, inputs.logit_rows
        for layer in layers:
            x, residual = layer(x, residual, step)
        assert x is not None, "a model without layers"
        return norm.after_adding(x.index_select(0, rows), residual.index_select(0, rows))

    def _layers(
        self, configuration: ModelConfiguration, kernels: Kernels, make: LayerMaker
    ) -> list[DecoderLayer]:
        return [
            make(configuration, kernels, self._attention, number)
            for number in range(configuration.num_layers)
        ]


class Decoder(DecoderStack):
    """The usual one; ``model`` in checkpoints."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        make_layer: LayerMaker,
        *,
        embedding_scale: float | None = None,
        norm_offset: float = 0.0,
    ) -> None:
        super().__init__(configuration, kernels)
        size = configuration.hidden_size
        self.embed_tokens = VocabularyEmbedding(
            kernels, configuration.vocab_size, size, embedding_scale
        )
        self.layers = self._layers(configuration, kernels, make_layer)
        self.norm = RMSNorm(kernels, size, configuration.norm_epsilon, norm_offset)

    @property
    def tokens(self) -> VocabularyEmbedding:
        """As ``DecoderStack.tokens``."""
        return self.embed_tokens

    @property
    def stack(self) -> tuple[list[DecoderLayer], Norm]:
        """As ``DecoderStack.stack``."""
        return self.layers, self.norm

    def __call__(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``DecoderStack.__call__``."""
        return self._run(self.embed_tokens(inputs.token_ids), inputs, cache)


class CausalLM(Model):
    """A decoder and its output layer, which may be the embedding of tokens."""

    runs_ahead = True
    configuration: ModelConfiguration
    embedding_key = "model.embed_tokens.weight"
    """Of the checkpoint."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration)
        self._cap = configuration.logit_cap
        self._is_tied = configuration.tied_embeddings
        self.lm_head = OutputLinear(kernels, configuration.hidden_size, configuration.vocab_size)

    @property
    @abstractmethod
    def decoder(self) -> DecoderStack:
        """Under whatever name the checkpoint has it."""

    @property
    def why_not_recorded(self) -> str:
        """As ``Model.why_not_recorded``."""
        if self.decoder.capturable:
            return self.recording_fault
        return "there are no kernels for its attention, or for codes as its experts have them"

    @property
    def adapters(self) -> StepAdapters | None:
        """As ``Model.adapters``."""
        return self.decoder.adapters

    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``Model.forward``."""
        return self.decoder(inputs, cache)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As ``Model.logits``."""
        logits = self.lm_head(hidden)
        return logits if self._cap is None else logits.div_(self._cap).tanh_().mul_(self._cap)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As declared; a tied output layer has no tensor of its own."""
        for slot in super().slots(path):
            if not (self._is_tied and slot.key == _OUTPUT):
                yield slot

    @property
    def tied(self) -> tuple[str, str] | None:
        """As ``Model.tied``."""
        return (self.embedding_key, _OUTPUT) if self._is_tied else None

    def untie(self) -> None:
        """As ``Model.untie``."""
        self._is_tied = False

    def is_needless(self, key: str) -> bool:
        """A tied output layer may be written all the same."""
        return self._is_tied and key == _OUTPUT

    def finish(self) -> None:
        """Tie the output layer."""
        self.decoder.finish()
        if self._is_tied:
            self.lm_head.tie(self.decoder.tokens.weight)
