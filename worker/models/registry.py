"""Which declaration runs which architecture; what has none runs through transformers."""

from collections.abc import Callable

from worker.kernels.select import Kernels
from worker.models.configuration import ModelConfiguration, contradiction
from worker.models.gemma import Gemma2ForCausalLM, Gemma3ForCausalLM
from worker.models.gpt2 import GPT2LMHeadModel
from worker.models.gpt_neox import GPTNeoXForCausalLM
from worker.models.gpt_oss import GptOssForCausalLM
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
    "GptOssForCausalLM": GptOssForCausalLM,
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

_MODEL_TYPES = {
    "gpt-sw3": "GPT2LMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "internlm3": "LlamaForCausalLM",
    "iquestcoder": "LlamaForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
"""By the model types that transformers runs with them, from files whose tensors are named alike."""


def find(architecture: str, model_type: str | None) -> Declaration | None:
    """The declaration; None for what has to run through transformers, which knows further types.

    transformers goes by the model type, we by the architecture: raises StartupError if the two name
    different families, for nobody could say which of them the weights are.
    """
    declared = ARCHITECTURES.get(architecture)
    if declared is None or model_type is None:
        return declared
    family = _MODEL_TYPES.get(model_type)
    if family not in (None, architecture):
        raise contradiction(architecture, model_type, family)
    return declared if family else None
