"""GPT-NeoX (Black et al. 2022) and Pythia: layer norms, biases, partial rotation.

Attention and feed-forward block read the same residual, unless the configuration says otherwise.
"""

import torch

from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts
from worker.layers.attention import Attention, Step
from worker.layers.block import block_of
from worker.layers.embedding import VocabularyEmbedding
from worker.layers.layer import Layer
from worker.layers.linear import ColumnParallelLinear, HeadwiseLinear, RowParallelLinear
from worker.layers.norm import LayerNorm, Norm
from worker.models.configuration import ModelConfiguration
from worker.models.decoder import CausalLM, DecoderLayer, DecoderStack
from worker.sharding import Units

_OUTPUT = {"embed_out.weight": "lm_head.weight"}
_NEEDLESS = (".attention.bias", ".attention.masked_bias")
"""Ends of keys of the causal masks that old checkpoints contain."""


class GPTNeoXAttention(Layer):
    """Self-attention of one layer."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        hidden, heads, bias = (
            configuration.hidden_size,
            configuration.num_heads,
            configuration.qkv_bias,
        )
        head_dim = configuration.head_dim
        self.query_key_value = HeadwiseLinear(kernels, hidden, heads, 3, head_dim, bias=bias)
        self.dense = RowParallelLinear(
            kernels, configuration.queries, hidden, bias=configuration.output_bias
        )
        self._attention = attention
        self._number = number

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """[T, hidden] to [T, own heads · head_dim]: all but the output projection."""
        return self._attention(self.query_key_value(x), step, self._number)


class GPTNeoXFeedForward(Layer):
    """Two linear layers around an activation."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        hidden, width = configuration.hidden_size, Units(configuration.intermediate_size)
        pack = kernels.pack_activated[configuration.activation]
        self.dense_h_to_4h = ColumnParallelLinear(kernels, hidden, width, bias=True, pack=pack)
        self.dense_4h_to_h = RowParallelLinear(kernels, width, hidden, bias=True)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to a new tensor [T, hidden]."""
        return self.dense_4h_to_h(self.dense_h_to_4h(x))


class GPTNeoXLayer(DecoderLayer):
    """Attention and feed-forward, each after a norm, beside or behind each other."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.input_layernorm = LayerNorm(kernels, size, epsilon)
        self.attention = GPTNeoXAttention(configuration, kernels, attention, number)
        self.post_attention_layernorm = LayerNorm(kernels, size, epsilon)
        self.mlp = GPTNeoXFeedForward(configuration, kernels)
        self._parallel = configuration.parallel_residual

    def parts(self) -> LayerParts:
        """As ``DecoderLayer.parts``."""
        attention, mlp = self.attention, self.mlp
        return LayerParts(
            block_of(self.input_layernorm, attention.query_key_value, attention.dense),
            block_of(self.post_attention_layernorm, mlp.dense_h_to_4h, mlp.dense_4h_to_h),
            parallel=self._parallel,
        )

    def __call__(
        self,
        x: torch.Tensor | None,
        residual: torch.Tensor,
        step: Step,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``DecoderLayer.__call__``."""
        if x is None:
            x = self.input_layernorm(residual)
        else:
            x = self.input_layernorm.after_adding(x, residual)
        x = self.attention(x, step)
        if rows is not None:
            x, residual = x.index_select(0, rows), residual.index_select(0, rows)
        x = self.attention.dense(x)
        if self._parallel:
            normed = self.post_attention_layernorm(residual)
            return self.mlp(normed), residual.add_(x)
        return self.mlp(self.post_attention_layernorm.after_adding(x, residual)), residual


class GPTNeoXDecoder(DecoderStack):
    """Embeddings, layers, final norm."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        size = configuration.hidden_size
        self.embed_in = VocabularyEmbedding(kernels, configuration.vocab_size, size)
        self.layers = self._layers(configuration, kernels, GPTNeoXLayer)
        self.final_layer_norm = LayerNorm(kernels, size, configuration.norm_epsilon)

    @property
    def stack(self) -> tuple[list[DecoderLayer], Norm]:
        """As ``DecoderStack.stack``."""
        return self.layers, self.final_layer_norm

    @property
    def tokens(self) -> VocabularyEmbedding:
        """As ``DecoderStack.tokens``."""
        return self.embed_in

    def __call__(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``DecoderStack.__call__``."""
        embedded = self.embed_in(inputs.token_ids)
        return self._run(embedded, inputs, cache)


class GPTNeoXForCausalLM(CausalLM):
    """The decoder and its output layer."""

    embedding_key = "gpt_neox.embed_in.weight"

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        self.gpt_neox = GPTNeoXDecoder(configuration, kernels)

    @property
    def decoder(self) -> GPTNeoXDecoder:
        """As ``CausalLM.decoder``."""
        return self.gpt_neox

    def declared(self, key: str) -> str:
        """As ``Model.declared``."""
        return _OUTPUT.get(key, key)

    def is_needless(self, key: str) -> bool:
        """As ``Model.is_needless``."""
        return key.endswith(_NEEDLESS) or super().is_needless(key)
