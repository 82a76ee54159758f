"""Answers of ``/tokenize`` and ``/chat_tokenize``."""

from frontend.schema import U32
from frontend.schema.answers import Answer


class TextToken(Answer, frozen=True, kw_only=True):
    """A token and where it stands in the text."""

    id: U32
    """Its number in the vocabulary."""
    text: str
    """The part of the text that it covers; empty for an added special token."""
    start: U32
    """Where that part begins, in bytes of UTF-8."""
    stop: U32
    """Where it ends."""


class ChatTokenizeAnswer(Answer, frozen=True, kw_only=True):
    """The answer of `/chat_tokenize`."""

    tokenize_response: list[TextToken]
    """The tokens of the prompt."""
    templated_text: str
    """The prompt: the conversation, rendered by the chat template."""
