"""OLMo 2 (Ai2 2025): norms after attention and feed-forward block, not before."""

import torch

from worker.kernels.reference.norm import HeadNorms
from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts
from worker.layers.attention import Attention, Step
from worker.layers.block import block_of
from worker.layers.feedforward import GatedFeedForward
from worker.layers.norm import RMSNorm, SplitRMSNorm
from worker.models.configuration import ModelConfiguration
from worker.models.decoder import DecoderLayer
from worker.models.llama import LlamaAttention, LlamaForCausalLM


class Olmo2Attention(LlamaAttention):
    """All queries of a token are normalised together, and all its keys."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        super().__init__(configuration, kernels, attention, number)
        self.q_norm = SplitRMSNorm(kernels, configuration.queries, configuration.norm_epsilon)
        self.k_norm = SplitRMSNorm(kernels, configuration.keys, configuration.norm_epsilon)

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """As ``LlamaAttention.__call__``."""
        qkv = self.qkv_proj(x)
        queries, keys = self._attention.queries_and_keys(qkv)
        queries.copy_(self.q_norm(queries))
        keys.copy_(self.k_norm(keys))
        return self._attention(qkv, step, self._number)


class Olmo2Layer(DecoderLayer):
    """What is added to the residual is normalised, not what is read from it."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.self_attn = Olmo2Attention(configuration, kernels, attention, number)
        self.post_attention_layernorm = RMSNorm(kernels, size, epsilon)
        self.mlp = GatedFeedForward(
            kernels, size, configuration.intermediate_size, configuration.activation
        )
        self.post_feedforward_layernorm = RMSNorm(kernels, size, epsilon)

    def parts(self) -> LayerParts:
        """As ``DecoderLayer.parts``."""
        attention = self.self_attn
        return LayerParts(
            block_of(None, attention.qkv_proj, attention.o_proj, self.post_attention_layernorm),
            block_of(
                None,
                self.mlp.gate_up_proj,
                self.mlp.down_proj,
                self.post_feedforward_layernorm,
            ),
            HeadNorms(attention.q_norm.operations, attention.k_norm.operations),
        )

    def __call__(
        self,
        x: torch.Tensor | None,
        residual: torch.Tensor,
        step: Step,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``DecoderLayer.__call__``."""
        if x is not None:
            residual = residual.add_(x)
        x = self.self_attn(residual, step)
        if rows is not None:
            x, residual = x.index_select(0, rows), residual.index_select(0, rows)
        residual = residual.add_(self.post_attention_layernorm(self.self_attn.o_proj(x)))
        return self.post_feedforward_layernorm(self.mlp(residual)), residual


class Olmo2ForCausalLM(LlamaForCausalLM):
    """The decoder and its output layer."""

    layer_class = Olmo2Layer
