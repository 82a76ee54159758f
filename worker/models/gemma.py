"""Gemma 2 and the text model of Gemma 3 (Google 2024, 2025).

Norms before and after each block, whose weights are offsets from 1; embeddings scaled by the root
of their size. Windows, caps of scores and logits, and the two bases of rotation are configuration.
"""

import torch

from worker.kernels.select import Kernels
from worker.kernels.stack import LayerParts
from worker.layers.attention import Attention, Step
from worker.layers.block import block_of
from worker.layers.feedforward import GatedFeedForward
from worker.layers.norm import RMSNorm
from worker.models.configuration import ModelConfiguration
from worker.models.decoder import CausalLM, Decoder, DecoderLayer
from worker.models.llama import LlamaAttention
from worker.models.qwen3 import Qwen3Attention

_NORM_OFFSET = 1.0


class Gemma2Layer(DecoderLayer):
    """Four norms."""

    attention_class = LlamaAttention

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.input_layernorm = RMSNorm(kernels, size, epsilon, _NORM_OFFSET)
        self.self_attn = self.attention_class(configuration, kernels, attention, number)
        self.post_attention_layernorm = RMSNorm(kernels, size, epsilon, _NORM_OFFSET)
        self.pre_feedforward_layernorm = RMSNorm(kernels, size, epsilon, _NORM_OFFSET)
        self.mlp = GatedFeedForward(
            kernels, size, configuration.intermediate_size, configuration.activation
        )
        self.post_feedforward_layernorm = RMSNorm(kernels, size, epsilon, _NORM_OFFSET)

    def parts(self) -> LayerParts:
        """As ``DecoderLayer.parts``."""
        return LayerParts(
            block_of(
                self.input_layernorm,
                self.self_attn.qkv_proj,
                self.self_attn.o_proj,
                self.post_attention_layernorm,
            ),
            block_of(
                self.pre_feedforward_layernorm,
                self.mlp.gate_up_proj,
                self.mlp.down_proj,
                self.post_feedforward_layernorm,
            ),
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
        x = self.post_attention_layernorm(self.self_attn.o_proj(x))
        x = self.pre_feedforward_layernorm.after_adding(x, residual)
        return self.post_feedforward_layernorm(self.mlp(x)), residual


class Gemma3Attention(Qwen3Attention):
    """Every head of queries and keys is normalised before it is rotated."""

    norm_offset = _NORM_OFFSET


class Gemma3Layer(Gemma2Layer):
    """Gemma 2's but for the attention."""

    attention_class = Gemma3Attention


class Gemma2ForCausalLM(CausalLM):
    """The decoder and its output layer."""

    layer_class = Gemma2Layer

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration, kernels)
        self.model = Decoder(
            configuration,
            kernels,
            self.layer_class,
            embedding_scale=configuration.hidden_size**0.5,
            norm_offset=_NORM_OFFSET,
        )

    @property
    def decoder(self) -> Decoder:
        """As ``CausalLM.decoder``."""
        return self.model


class Gemma3ForCausalLM(Gemma2ForCausalLM):
    """Gemma 3 without its image encoder."""

    layer_class = Gemma3Layer
