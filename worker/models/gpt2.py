"""GPT-2 (Radford et al. 2019): learned positions, layer norms, biases, transposed weights."""

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts
from worker.layers.attention import Attention, Step
from worker.layers.block import block_of
from worker.layers.embedding import Embedding, VocabularyEmbedding
from worker.layers.layer import Layer
from worker.layers.linear import ColumnParallelLinear, RowParallelLinear, Transposed
from worker.layers.norm import LayerNorm, Norm
from worker.models.configuration import ModelConfiguration
from worker.models.decoder import CausalLM, DecoderLayer, DecoderStack
from worker.sharding import Units

_PREFIX = "transformer."
_MASKS = (".attn.bias", ".attn.masked_bias")
"""Ends of keys of the causal masks that old checkpoints contain."""


class GPT2Attention(Layer):
    """Self-attention of one layer."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        hidden, heads = configuration.hidden_size, configuration.queries
        self.c_attn = Transposed(
            ColumnParallelLinear(kernels, hidden, heads, heads, heads, bias=True)
        )
        self.c_proj = Transposed(RowParallelLinear(kernels, heads, hidden, bias=True))
        self._attention = attention
        self._number = number

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """[T, hidden] to [T, own heads · head_dim]: all but the output projection."""
        return self._attention(self.c_attn(x), step, self._number)


class GPT2FeedForward(Layer):
    """Two linear layers around an activation."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        hidden, width = configuration.hidden_size, Units(configuration.intermediate_size)
        pack = kernels.pack_activated[configuration.activation]
        self.c_fc = Transposed(ColumnParallelLinear(kernels, hidden, width, bias=True, pack=pack))
        self.c_proj = Transposed(RowParallelLinear(kernels, width, hidden, bias=True))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        return self.c_proj(self.c_fc(x))


class GPT2Layer(DecoderLayer):
    """Attention and feed-forward, each after a norm, each added to the residual."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.ln_1 = LayerNorm(kernels, size, epsilon)
        self.attn = GPT2Attention(configuration, kernels, attention, number)
        self.ln_2 = LayerNorm(kernels, size, epsilon)
        self.mlp = GPT2FeedForward(configuration, kernels)

    def parts(self) -> LayerParts:
        """As ``DecoderLayer.parts``."""
        return LayerParts(
            block_of(self.ln_1, self.attn.c_attn, self.attn.c_proj),
            block_of(self.ln_2, self.mlp.c_fc, self.mlp.c_proj),
        )

    def __call__(
        self,
        x: torch.Tensor | None,
        residual: torch.Tensor,
        step: Step,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``DecoderLayer.__call__``."""
        x = self.ln_1(residual) if x is None else self.ln_1.after_adding(x, residual)
        x = self.attn(x, step)
        if rows is not None:
            x, residual = x.index_select(0, rows), residual.index_select(0, rows)
        x = self.ln_2.after_adding(self.attn.c_proj(x), residual)
        return self.mlp(x), residual


class GPT2Decoder(DecoderStack):
    """Embeddings of tokens and positions, layers, final norm."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        size = configuration.hidden_size
        self.wte = VocabularyEmbedding(kernels, configuration.vocab_size, size)
        self.wpe = Embedding(kernels, configuration.max_position_embeddings, size)
        self.h = self._layers(configuration, kernels, GPT2Layer)
        self.ln_f = LayerNorm(kernels, size, configuration.norm_epsilon)

    @property
    def stack(self) -> tuple[list[DecoderLayer], Norm]:
        """As ``DecoderStack.stack``."""
        return self.h, self.ln_f

    @property
    def tokens(self) -> VocabularyEmbedding:
        """As ``DecoderStack.tokens``."""
        return self.wte

    def __call__(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``DecoderStack.__call__``."""
        embedded = self.wte(inputs.token_ids).add_(self.wpe(inputs.positions))
        return self._run(embedded, inputs, cache)


class GPT2LMHeadModel(CausalLM):
    """The decoder and its output layer."""

    embedding_key = "transformer.wte.weight"

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        self.transformer = GPT2Decoder(configuration, kernels)

    @property
    def decoder(self) -> GPT2Decoder:
        """As ``CausalLM.decoder``."""
        return self.transformer

    def declared(self, key: str) -> str:
        """The first checkpoints are of the decoder alone: without its name before each key."""
        return key if key.startswith((_PREFIX, "lm_head.")) else _PREFIX + key

    def is_needless(self, key: str) -> bool:
        """As ``Model.is_needless``."""
        return key.endswith(_MASKS) or super().is_needless(key)
