"""Steps over a whole model, for comparing what runs its layers."""

from contextlib import contextmanager

import torch

from tests.worker.paged import Paged

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 90, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "max_position_embeddings": 512, "rope_theta": 10000.0,
}  # fmt: skip


def run(model):
    """Prompts, then steps that decode beside prompts; all logits."""
    paged = Paged(model)
    first, second = paged.start(list(range(1, 41))), paged.start([5, 6, 7])
    found = [paged.step([(first, 33)]), paged.step([(first, 7), (second, 3)])]
    for sequence, token in ((first, 3), (second, 4)):
        sequence.ids.append(token)
    third = paged.start(list(range(50, 90)))
    found.append(paged.step([(first, 1), (second, 1), (third, 40)], rows="all"))
    return torch.cat(found)


def long_prompts(model, tokens=1100):
    """So long that two threads work apart; the last token's logits alone, and those of all."""
    paged = Paged(model, blocks=160)
    prompt = [(7 * i) % 80 for i in range(tokens)]
    one, two = paged.start(prompt), paged.start(prompt)
    return torch.cat([paged.step([(one, tokens)]), paged.step([(two, tokens)], rows="all")])


@contextmanager
def threads(count):
    """So many for torch and the kernels, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
