"""Mixtral (Mistral AI 2024): Llama whose feed-forward blocks are mixtures of experts.

The mixture is Llama's own, by configuration; here are the names that its checkpoints give it.
"""

from worker.models.llama import LlamaForCausalLM

_NAMES = {
    ".block_sparse_moe.": ".mlp.",
    ".w1.": ".gate_proj.",
    ".w2.": ".down_proj.",
    ".w3.": ".up_proj.",
}


class MixtralForCausalLM(LlamaForCausalLM):
    """The decoder and its output layer."""

    renamed = _NAMES
