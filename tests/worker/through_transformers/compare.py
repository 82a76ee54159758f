"""Tiny random models of any class, and greedy text: by transformers' generate and by our engine."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig

from tests.worker.driver import CPU, Driver
from tests.worker.through_transformers.shrink import tiny_config
from worker.cache import KVCache
from worker.kernels.select import select
from worker.models.model import Model
from worker.models.through_transformers.load import place

BLOCKS = 64
TOKENS = 8
STEP_TOKENS = 12
PROMPT_LENGTHS = (5, 19, 34)
"""Shorter and longer than a block, a window of the tiny models, and a step."""
ENOUGH_DIFFERENT = 5
_KEPT = ("A_log", "dt_bias", "dt_proj", "time_", "rotary", "inv_freq", "norm", "gate_bias")
"""Parts of names of parameters that stay near what their class begins with."""


def make_tiny(config: PreTrainedConfig, *, seed: int = 0, spread: float | None = None) -> Any:
    """A random model whose next token depends visibly on the tokens before.

    ``spread`` is the embeddings'; where they are the output layer too, a small one keeps tokens
    from following themselves.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    embeddings = {
        id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)
    }
    if spread is None:
        output = model.get_output_embeddings()
        spread = 0.05 if id(getattr(output, "weight", None)) in embeddings else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() < 2 or any(part in name for part in _KEPT):
                parameter.nan_to_num_().add_(noise * 0.1)
            elif id(parameter) in embeddings:
                parameter.copy_(noise * spread)
            else:
                parameter.copy_(noise * 0.15)
    return model


def make_talkative(config: PreTrainedConfig) -> tuple[Any, list[list[int]]]:
    """A tiny model whose texts have several different tokens, and these texts."""
    best: tuple[int, Any, list[list[int]]] | None = None
    for seed, spread in enumerate((None, 0.3, 1.0)):
        model = make_tiny(config, seed=seed, spread=spread)
        texts = generated(model)
        different = len({token for text in texts for token in text})
        if best is None or different > best[0]:
            best = (different, model, texts)
        if different >= ENOUGH_DIFFERENT:
            break
    assert best is not None
    return best[1], best[2]


def prompts() -> list[list[int]]:
    """Token ids that no tiny configuration gives a meaning to."""
    generator = torch.Generator().manual_seed(7)
    return [
        torch.randint(10, 100, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS
    ]


@torch.inference_mode()
def generated(model: Any) -> list[list[int]]:
    """What transformers' generate continues each prompt with, on its own."""
    settings = GenerationConfig(
        max_new_tokens=TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    model.generation_config = GenerationConfig()  # no tokens that a class forces upon the end
    texts = []
    for prompt in prompts():
        ids = torch.tensor([prompt])
        output = model.generate(ids, generation_config=settings)
        texts.append(output[0, len(prompt) :].tolist())
    return texts


def served(model: Model) -> list[list[int]]:
    """What the engine continues them with: all at once, the longer prompts in chunks."""
    cache = KVCache(model.configuration, BLOCKS, CPU, model.configuration.dtype)
    driver = Driver(model, cache, blocks=BLOCKS, step_tokens=STEP_TOKENS)
    for number, prompt in enumerate(prompts()):
        driver.add(number, prompt, TOKENS)
    driver.run()
    for record in driver.records.values():
        if record.error:
            raise AssertionError(record.error)
    return [driver.records[number].ids for number in range(len(PROMPT_LENGTHS))]


def placed(model_type):
    """A tiny model of this type as it is run here, its texts, and log-probabilities of prompts."""
    theirs, texts = make_talkative(tiny_config(model_type))
    with torch.inference_mode():
        wanted = [
            torch.log_softmax(theirs(input_ids=torch.tensor([ids])).logits[0].float(), -1)
            for ids in prompts()
        ]
    return place(theirs, select(CPU, torch.float32)), texts, wanted
