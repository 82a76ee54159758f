"""The parts of a message's content, joined; what the OpenAI surfaces share."""

from collections.abc import Sequence
from typing import Protocol

from frontend.limits import invalid

_TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "summary_text": "text",
}
"""Types of parts that are text, and the key under which it stands."""


class Part(Protocol):
    """One part, as a client sends it."""

    @property
    def type(self) -> str:
        """What it is."""

    @property
    def text(self) -> str | None:
        """Its text, if it is one."""

    @property
    def refusal(self) -> str | None:
        """Its text, if it is a refusal."""


def joined(content: str | Sequence[Part], where: str) -> str:
    """The text of a content; media is refused. Raises RequestError (VALIDATION)."""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for k, part in enumerate(content):
        key = _TEXTS.get(part.type)
        if key is None:
            raise invalid(f"`{where}[{k}]` is `{part.type[:40]}`: this model reads only text")
        text = part.refusal if key == "refusal" else part.text
        if text is None:
            raise invalid(f"`{where}[{k}]` needs `{key}`")
        texts.append(text)
    return "".join(texts)
