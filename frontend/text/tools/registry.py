"""The formats of tool calls, and which of them a model's chat template writes."""

from frontend.text.tools.format import ToolFormat
from frontend.text.tools.harmony import Harmony
from frontend.text.tools.hermes import Hermes
from frontend.text.tools.json_calls import JsonCalls
from frontend.text.tools.llama3 import Llama3
from frontend.text.tools.mistral import MistralArgs, MistralList

GENERIC: ToolFormat = JsonCalls()
"""For every other model."""
FORMATS: tuple[ToolFormat, ...] = (
    Harmony(),
    MistralArgs(),
    MistralList(),
    Hermes(),
    Llama3(),
    GENERIC,
)
"""In the order in which they are tried: the more particular sign first."""


def detect(template_source: str) -> ToolFormat:
    """The format that a chat template writes; the generic one if it shows no other."""
    return next(found for found in FORMATS if found.recognises(template_source))


def by_name(name: str) -> ToolFormat | None:
    """A format by its name; None if there is none of that name."""
    return next((found for found in FORMATS if found.name == name), None)
