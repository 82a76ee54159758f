"""What a model's way to write tool calls has to offer; runs in front ends.

One file per format, listed in ``registry.py``. A format knows text only: neither templates beyond
recognising them, nor tokens beyond the ids of its markers, nor who asked.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

from frontend.text.deltas import Reader
from frontend.text.tools.tool import ToolChoice

TokenId = Callable[[str], int | None]
"""The id of a text that is one token of its own in the vocabulary; None if it is not."""


class ToolFormat(Protocol):
    """One way to write tool calls."""

    name: ClassVar[str]
    marker_tokens: ClassVar[tuple[str, ...]]
    """Texts that the reader must see even where they are special tokens."""
    end_tokens: ClassVar[tuple[str, ...]] = ()
    """Texts that end an answer where they are tokens, besides the model's own end tokens."""
    one_by_one: ClassVar[bool] = False
    """Whether templates write no more than one call of a message, and one text with it."""
    short_ids: ClassVar[bool] = False
    """Whether templates accept only ids of 9 letters and digits."""

    def recognises(self, template_source: str) -> bool:
        """Whether a chat template writes calls this way."""
        ...

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """Lark rules, one of which is ``answer``: what the model may write."""
        ...

    def grammar(self, choice: ToolChoice, token_id: TokenId) -> str:
        """A whole llguidance grammar in Lark: ``answer`` and nothing else."""
        return "start: answer\n" + self.answer(choice, token_id)

    def reader(self, choice: ToolChoice) -> Reader:
        """Reads one answer."""
        ...
