"""Llama (Touvron et al. 2023): the decoder that most others are variations of."""

from collections.abc import Iterator

import torch

from common.errors import StartupError
from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.kernels.select import Kernels
from worker.layers.attention import Attention, Step
from worker.layers.embedding import Embedding
from worker.layers.layer import Layer, Slot
from worker.layers.linear import FusedLinear, Linear
from worker.layers.norm import RMSNorm
from worker.layers.rotary import Rotary
from worker.models.configuration import ModelConfiguration
from worker.models.model import Model

_TIED = frozenset({"lm_head.weight"})


class LlamaAttention(Layer):
    """Self-attention of one layer."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        shape = configuration.attention
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        hidden, bias = configuration.hidden_size, configuration.attention_bias
        outputs = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        self.qkv_proj = FusedLinear(kernels, hidden, outputs, bias=bias)
        self.o_proj = Linear(kernels, queries, hidden, bias=bias)
        self._attention = attention
        self._number = number

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """[T, hidden] to [T, heads · head_dim]: all but the output projection."""
        return self._attention(self.qkv_proj(x), step, self._number)


class LlamaMLP(Layer):
    """Gated feed-forward block."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        if configuration.activation not in ("silu", "swish"):
            raise StartupError(
                f"config.json: hidden_act {configuration.activation!r} is not supported, only silu"
            )
        hidden, width = configuration.hidden_size, configuration.intermediate_size
        outputs = {"gate_proj": width, "up_proj": width}
        self.gate_up_proj = FusedLinear(kernels, hidden, outputs, bias=configuration.mlp_bias)
        self.down_proj = Linear(kernels, width, hidden, bias=configuration.mlp_bias)
        self._activation = kernels.silu_and_multiply

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] to [T, hidden]."""
        return self.down_proj(self._activation(self.gate_up_proj(x)))


class LlamaLayer(Layer):
    """Attention and feed-forward, each after a norm, each added to the residual."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        size, epsilon = configuration.hidden_size, configuration.norm_epsilon
        self.input_layernorm = RMSNorm(kernels, size, epsilon)
        self.self_attn = LlamaAttention(configuration, kernels, attention, number)
        self.post_attention_layernorm = RMSNorm(kernels, size, epsilon)
        self.mlp = LlamaMLP(configuration, kernels)

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


class LlamaDecoder(Layer):
    """From token ids to the final norm; ``model`` in checkpoints."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        size = configuration.hidden_size
        rotary = Rotary(configuration.rotary, kernels.device, kernels.dtype)
        attention = Attention(kernels, configuration.attention, rotary)
        self._attention = attention
        self.embed_tokens = Embedding(kernels, configuration.vocab_size, size)
        self.layers = [
            LlamaLayer(configuration, kernels, attention, number)
            for number in range(configuration.num_layers)
        ]
        self.norm = RMSNorm(kernels, size, configuration.norm_epsilon)

    def __call__(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """Hidden rows [R, hidden] of ``inputs.logit_rows``."""
        step = self._attention.begin(inputs, cache)
        x, residual = None, self.embed_tokens(inputs.token_ids)
        for layer in self.layers[:-1]:
            x, residual = layer(x, residual, step)
        x, residual = self.layers[-1](x, residual, step, inputs.logit_rows)
        return self.norm.after_adding(x, residual)


class LlamaForCausalLM(Model):
    """The decoder and its output layer."""

    def __init__(self, configuration: ModelConfiguration, kernels: Kernels) -> None:
        super().__init__(configuration)
        vocabulary, hidden = configuration.vocab_size, configuration.hidden_size
        self.model = LlamaDecoder(configuration, kernels)
        self.lm_head = Linear(kernels, hidden, vocabulary, bias=False)

    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``Model.forward``."""
        return self.model(inputs, cache)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As ``Model.logits``."""
        return self.lm_head(hidden).float()

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As declared; a tied output layer has no tensor of its own."""
        for slot in super().slots(path):
            if not (self.configuration.tied_embeddings and slot.key in _TIED):
                yield slot

    def optional_keys(self) -> frozenset[str]:
        """A tied output layer may be written all the same."""
        return _TIED if self.configuration.tied_embeddings else frozenset()

    def finish(self) -> None:
        """Tie the output layer."""
        if self.configuration.tied_embeddings:
            self.lm_head.tie(self.model.embed_tokens.weight)
