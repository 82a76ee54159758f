"""Qwen3 (Qwen team 2025), dense and as a mixture of experts: Llama with a norm of each head.

The mixture is Llama's own, by configuration.
"""

from functools import cached_property

from worker.kernels.reference.norm import HeadNorms
from worker.kernels.select import Kernels
from worker.layers.attention import Attention
from worker.layers.norm import RMSNorm
from worker.models.configuration import ModelConfiguration
from worker.models.llama import LlamaAttention, LlamaForCausalLM, LlamaLayer


class Qwen3Attention(LlamaAttention):
    """Every head of queries and keys is normalised before it is rotated."""

    norm_offset = 0.0

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        super().__init__(configuration, kernels, attention, number)
        size, epsilon = configuration.head_dim, configuration.norm_epsilon
        self.q_norm = RMSNorm(kernels, size, epsilon, self.norm_offset)
        self.k_norm = RMSNorm(kernels, size, epsilon, self.norm_offset)

    @cached_property
    def head_norms(self) -> HeadNorms:
        """As ``LlamaAttention.head_norms``; once the weights are there."""
        return HeadNorms(self.q_norm.operations, self.k_norm.operations)


class Qwen3Layer(LlamaLayer):
    """Llama's but for the attention."""

    attention_class = Qwen3Attention


class Qwen3ForCausalLM(LlamaForCausalLM):
    """Qwen3ForCausalLM and Qwen3MoeForCausalLM."""

    layer_class = Qwen3Layer
