"""The models of these measurements, and the least that a step over them has to move and compute."""

from dataclasses import dataclass
from typing import Any

BYTES = 2
"""Of a number in bfloat16."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama: what its configuration says."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of one layer."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        return attention + 3 * self.hidden * self.inner

    @property
    def matrix_weights(self) -> int:
        """Numbers in all matrices that a token is multiplied with: not those looked up."""
        return self.layers * self.layer_weights + self.hidden * self.vocabulary

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values."""
        return 2 * BYTES * self.layers * self.kv_heads * self.head_dim

    def decode_floor_s(self, streams: int, context: int, bytes_s: float) -> float:
        """A step reads every matrix and every key and value once."""
        return (self.matrix_weights * BYTES + streams * context * self.kv_bytes) / bytes_s

    def prefill_operations(self, tokens: int, sequences: int) -> tuple[float, float]:
        """Of reading prompts of ``tokens`` each: in matrices, and in causal attention.

        Logits are computed of the last token alone.
        """
        matrices = 2.0 * tokens * self.layers * self.layer_weights
        matrices += 2.0 * self.hidden * self.vocabulary
        attention = 2.0 * self.layers * self.heads * self.head_dim * tokens * (tokens + 1)
        return sequences * matrices, sequences * attention

    def configuration(self) -> dict[str, Any]:
        """As config.json has it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
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


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
    "1b": Shape(2048, 8192, 16, 32, 8, 64, 128256),
    "tiny": Shape(64, 96, 2, 4, 2, 16, 512),
}
"""Llama 3.1 8B's, Llama 3.2 1B's (its output layer untied), and one for trials on a CPU."""
