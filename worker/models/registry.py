"""Which declaration runs which architecture."""

from collections.abc import Callable

from common.errors import StartupError
from worker.kernels.select import Kernels
from worker.models.configuration import ModelConfiguration
from worker.models.llama import LlamaForCausalLM
from worker.models.model import Model

Declaration = Callable[[ModelConfiguration, Kernels], Model]

ARCHITECTURES: dict[str, Declaration] = {
    "LlamaForCausalLM": LlamaForCausalLM,
}
"""By the name in ``architectures`` of config.json."""


def find(architecture: str) -> Declaration:
    """The declaration, or a StartupError that lists what there is."""
    try:
        return ARCHITECTURES[architecture]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise StartupError(
            f"the architecture {architecture!r} is not supported; known are: {known}"
        ) from None
