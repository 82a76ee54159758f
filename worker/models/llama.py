"""Llama (Touvron et al. 2023): the decoder that most others are variations of.

Mistral is Llama with a sliding window, Qwen2 with biases of its own: both by configuration.
"""

import torch

from worker.kernels.reference.norm import HeadNorms
from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts
from worker.layers.attention import Attention, Step
from worker.layers.block import block_of
from worker.layers.feedforward import GatedFeedForward
from worker.layers.layer import Layer
from worker.layers.linear import FusedLinear, Matrix, RowParallelLinear
from worker.layers.mixture import Mixture
from worker.layers.norm import RMSNorm
from worker.models.configuration import ModelConfiguration
from worker.models.decoder import CausalLM, Decoder, DecoderLayer

FeedForward = GatedFeedForward | Mixture


class LlamaAttention(Layer):
    """Self-attention of one layer."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        queries, keys = configuration.queries, configuration.keys
        hidden = configuration.hidden_size
        outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        self.qkv_proj: Matrix = FusedLinear(kernels, hidden, outputs, bias=configuration.qkv_bias)
        self.o_proj = RowParallelLinear(kernels, queries, hidden, bias=configuration.output_bias)
        self._attention = attention
        self._number = number

    @property
    def head_norms(self) -> HeadNorms | None:
        """Of queries and keys, before they are rotated."""
        return None

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """[T, hidden] to [T, heads · head_dim]: all but the output projection."""
        return self._attention(self.qkv_proj(x), step, self._number, self.head_norms)


class LlamaLayer(DecoderLayer):
    """Attention and feed-forward, each after a norm, each added to the residual.

    Other families replace one of the two, or the order of things.
    """

    attention_class = LlamaAttention

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.input_layernorm = RMSNorm(kernels, size, epsilon)
        self.self_attn = self.attention_class(configuration, kernels, attention, number)
        self.post_attention_layernorm = RMSNorm(kernels, size, epsilon)
        self.mlp = self.feed_forward(configuration, kernels, number)

    def feed_forward(
        self, configuration: ModelConfiguration, kernels: Kernels, number: int
    ) -> FeedForward:
        """The block of layer ``number``: a mixture of experts where the configuration has one."""
        hidden, activation = configuration.hidden_size, configuration.activation
        if configuration.mixture is not None and number in configuration.mixture_layers:
            return Mixture(kernels, hidden, configuration.mixture, activation)
        width, bias = configuration.intermediate_size, configuration.mlp_bias
        return GatedFeedForward(kernels, hidden, width, activation, bias=bias)

    @property
    def capturable(self) -> bool:
        """As ``DecoderLayer.capturable``."""
        return not isinstance(self.mlp, Mixture) or self.mlp.capturable

    def parts(self) -> LayerParts | None:
        """As ``DecoderLayer.parts``; with a mixture there are none."""
        if not isinstance(self.mlp, GatedFeedForward):
            return None
        return LayerParts(
            block_of(self.input_layernorm, self.self_attn.qkv_proj, self.self_attn.o_proj),
            block_of(self.post_attention_layernorm, self.mlp.gate_up_proj, self.mlp.down_proj),
            self.self_attn.head_norms,
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
        x = self.self_attn(x, step)
        if rows is not None:
            x, residual = x.index_select(0, rows), residual.index_select(0, rows)
        x = self.self_attn.o_proj(x)
        x = self.post_attention_layernorm.after_adding(x, residual)
        return self.mlp(x), residual


class LlamaForCausalLM(CausalLM):
    """The decoder and its output layer."""

    layer_class: type[DecoderLayer] = LlamaLayer

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        self.model = Decoder(configuration, kernels, self.layer_class)

    @property
    def decoder(self) -> Decoder:
        """As ``CausalLM.decoder``."""
        return self.model
