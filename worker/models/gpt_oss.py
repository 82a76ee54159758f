"""gpt-oss (OpenAI 2025): Llama with sinks beside the keys, and mixtures of experts with biases.

Every second layer has a window. The mixture's form, its gates and the sinks are configuration.
"""

from collections.abc import Iterator
from functools import cached_property

import torch

from worker.kernels.attention import AttentionKernel
from worker.kernels.select import Kernels
from worker.layers.attention import Attention, Step
from worker.layers.layer import Layer, Slot
from worker.models.configuration import ModelConfiguration
from worker.models.llama import LlamaAttention, LlamaForCausalLM, LlamaLayer
from worker.sharding import Units

_NAMES = {
    ".mlp.router.": ".mlp.gate.",
    "_proj_blocks": "_proj.blocks",
    "_proj_scales": "_proj.scales",
}


class Sinks(Layer):
    """A logit of each head that takes part in its softmax and brings no value."""

    def __init__(self, kernels: Kernels, heads: int) -> None:
        self._units = Units(heads)
        self._kernels = kernels
        self.logits: torch.Tensor
        """[heads of this shard] float32, once they are there."""

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The one tensor."""
        cut = self._kernels.sharding.cut(0, self._units)
        yield Slot(path, (self._units.total,), self._fill, cut=cut)

    def _fill(self, tensor: torch.Tensor) -> None:
        self.logits = tensor.to(self._kernels.device, torch.float32, copy=True)


class GptOssAttention(LlamaAttention):
    """With sinks."""

    def __init__(
        self,
        configuration: ModelConfiguration,
        kernels: Kernels,
        attention: Attention,
        number: int,
    ) -> None:
        super().__init__(configuration, kernels, attention, number)
        self.sinks = Sinks(kernels, configuration.num_heads)

    @cached_property
    def _kernel(self) -> AttentionKernel:
        """Once the weights are there."""
        return self._attention.with_sinks(self.sinks.logits)

    def __call__(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """As ``LlamaAttention.__call__``."""
        return self._attention(self.qkv_proj(x), step, self._number, kernel=self._kernel)


class GptOssLayer(LlamaLayer):
    """Llama's but for the attention."""

    attention_class = GptOssAttention


class GptOssForCausalLM(LlamaForCausalLM):
    """The decoder and its output layer."""

    layer_class = GptOssLayer
    renamed = _NAMES
