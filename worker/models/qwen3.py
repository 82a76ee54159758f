"""Qwen3 (Qwen team 2025), dense and as a mixture of experts: Llama with a norm of each head.

The mixture is Llama's own, by configuration.
"""

import torch

from worker.kernels.reference.norm import HeadNorms
from worker.kernels.select import Kernels
from worker.layers.attention import Attention, Step
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

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """As ``LlamaAttention.__call__``."""
        norms = HeadNorms(self.q_norm.operations, self.k_norm.operations)
        return self._attention(self.qkv_proj(x), step, self._number, norms)


class Qwen3Layer(LlamaLayer):
    """Llama's but for the attention."""

    attention_class = Qwen3Attention


class Qwen3ForCausalLM(LlamaForCausalLM):
    """Qwen3ForCausalLM and Qwen3MoeForCausalLM."""

    layer_class = Qwen3Layer
