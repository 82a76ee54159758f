"""The models of these measurements, and the least that a step over them has to move and compute."""

from dataclasses import dataclass
from typing import Any

BYTES = 2
"""Of a number in bfloat16."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama, or a Qwen3 whose feed-forward blocks are mixtures: what its configuration says."""

    hidden: int
    inner: int
    """Of the feed-forward block, or of each expert."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    experts: int = 0
    """Of each layer; 0: its feed-forward block is one for all tokens."""
    chosen: int = 0
    """Experts of a token."""

    def layer_weights(self, blocks: float) -> float:
        """Numbers in the matrices of one layer with so many feed-forward blocks, or experts."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + self.hidden * self.experts + 3 * self.hidden * self.inner * blocks

    def blocks_read(self, tokens: int) -> float:
        """Feed-forward blocks of a layer that so many tokens need.

        Of experts as many as are expected of tokens that choose theirs evenly, each by itself.
        """
        if not self.experts:
            return 1.0
        return self.experts * (1.0 - (1.0 - self.chosen / self.experts) ** tokens)

    def matrix_weights(self, tokens: int) -> float:
        """Numbers in all matrices that so many tokens are multiplied with: not those looked up."""
        layer = self.layer_weights(self.blocks_read(tokens))
        return self.layers * layer + self.hidden * self.vocabulary

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values."""
        return 2 * BYTES * self.layers * self.kv_heads * self.head_dim

    def decode_floor_s(self, streams: int, context: int, bytes_s: float) -> float:
        """A step reads every matrix that it needs, and every key and value, once."""
        numbers = self.matrix_weights(streams)
        return (numbers * BYTES + streams * context * self.kv_bytes) / bytes_s

    def prefill_operations(self, tokens: int, sequences: int) -> tuple[float, float]:
        """Of reading prompts of ``tokens`` each: in matrices, and in causal attention.

        Logits are computed of the last token alone.
        """
        matrices = 2.0 * tokens * self.layers * self.layer_weights(self.chosen or 1)
        matrices += 2.0 * self.hidden * self.vocabulary
        attention = 2.0 * self.layers * self.heads * self.head_dim * tokens * (tokens + 1)
        return sequences * matrices, sequences * attention

    def configuration(self) -> dict[str, Any]:
        """As config.json has it."""
        return {
            **self._family(),
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 8192,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": None,
            "eos_token_id": None,
        }

    def _family(self) -> dict[str, Any]:
        if not self.experts:
            return {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        return {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_experts": self.experts,
            "num_experts_per_tok": self.chosen,
            "moe_intermediate_size": self.inner,
            "norm_topk_prob": True,
        }


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
    "1b": Shape(2048, 8192, 16, 32, 8, 64, 128256),
    "moe": Shape(2048, 768, 12, 32, 4, 128, 151936, 128, 8),
    "tiny": Shape(64, 96, 2, 4, 2, 16, 512),
    "tiny-moe": Shape(64, 32, 2, 4, 2, 16, 512, 8, 2),
}
"""Llama 3.1 8B's, Llama 3.2 1B's (its output layer untied), a quarter of Qwen3 30B-A3B's layers,
which are 16 GB, and two for trials on a CPU."""
DEFAULT = "8b"
