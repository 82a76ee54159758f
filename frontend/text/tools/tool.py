"""A function that the model may call, and how far it may choose.

Filled by the surfaces, which have checked it. Knows no format.
"""

from dataclasses import dataclass
from typing import Any, Literal

Mode = Literal["auto", "required"]
"""``auto``: text or calls, as the model likes. ``required``: at least one call, no text."""


@dataclass(frozen=True)
class Tool:
    """One function."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments: an object's. Empty: a function without arguments."""

    def document(self) -> dict[str, Any]:
        """As chat templates and OpenAI write it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolChoice:
    """Which tools there are for one answer; ``tools`` is never empty."""

    tools: tuple[Tool, ...]
    mode: Mode
    """A named tool is ``required`` with that tool alone."""
    parallel: bool = True
    """Whether there may be several calls."""
