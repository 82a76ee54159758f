"""Which declaration runs which architecture; what has none runs through transformers."""

from collections.abc import Callable

from worker.kernels.select import Kernels
from worker.models.configuration import ModelConfiguration
from worker.models.gemma import Gemma2ForCausalLM, Gemma3ForCausalLM
from worker.models.gpt2 import GPT2LMHeadModel
from worker.models.gpt_neox import GPTNeoXForCausalLM
from worker.models.llama import LlamaForCausalLM
from worker.models.mixtral import MixtralForCausalLM
from worker.models.model import Model
from worker.models.olmo2 import Olmo2ForCausalLM
from worker.models.phi3 import Phi3ForCausalLM
from worker.models.qwen3 import Qwen3ForCausalLM

Declaration = Callable[[ModelConfiguration, Kernels], Model]

ARCHITECTURES: dict[str, Declaration] = {
    "GPT2LMHeadModel": GPT2LMHeadModel,
    "GPTNeoXForCausalLM": GPTNeoXForCausalLM,
    "Gemma2ForCausalLM": Gemma2ForCausalLM,
    "Gemma3ForCausalLM": Gemma3ForCausalLM,
    "LlamaForCausalLM": LlamaForCausalLM,
    "MistralForCausalLM": LlamaForCausalLM,
    "MixtralForCausalLM": MixtralForCausalLM,
    "Olmo2ForCausalLM": Olmo2ForCausalLM,
    "Phi3ForCausalLM": Phi3ForCausalLM,
    "Qwen2ForCausalLM": LlamaForCausalLM,
    "Qwen3ForCausalLM": Qwen3ForCausalLM,
    "Qwen3MoeForCausalLM": Qwen3ForCausalLM,
}
"""By the name in ``architectures`` of config.json. What several share differs by configuration: see
``dialects``."""


_STORED_OTHERWISE = frozenset({"exaone"})
"""Model types that are an architecture of ours under other names of tensors."""


def find(architecture: str, model_type: str) -> Declaration | None:
    """The declaration; None for what has to run through transformers."""
    return None if model_type in _STORED_OTHERWISE else ARCHITECTURES.get(architecture)
