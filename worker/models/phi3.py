"""Phi-3 and Phi-4 (Microsoft 2024): Llama whose checkpoints have projections fused already.

Rotation may be of a part of each head, by configuration.
"""

from worker.kernels.select import Kernels
from worker.layers.attention import Attention
from worker.layers.feedforward import GatedFeedForward
from worker.layers.linear import ColumnParallelLinear
from worker.models.configuration import ModelConfiguration
from worker.models.llama import LlamaAttention, LlamaForCausalLM, LlamaLayer


class Phi3Attention(LlamaAttention):
    """Queries, keys and values are one tensor of the checkpoint."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        super().__init__(configuration, kernels, attention, number)
        queries, keys = configuration.queries, configuration.keys
        hidden, bias = configuration.hidden_size, configuration.qkv_bias
        self.qkv_proj = ColumnParallelLinear(kernels, hidden, queries, keys, keys, bias=bias)


class Phi3Layer(LlamaLayer):
    """Gate and up are one tensor too."""

    attention_class = Phi3Attention

    def feed_forward(
        self, configuration: ModelConfiguration, kernels: Kernels, number: int
    ) -> GatedFeedForward:
        """As ``LlamaLayer.feed_forward``."""
        return GatedFeedForward(
            kernels,
            configuration.hidden_size,
            configuration.intermediate_size,
            configuration.activation,
            fused=True,
        )


class Phi3ForCausalLM(LlamaForCausalLM):
    """The decoder and its output layer."""

    layer_class = Phi3Layer
