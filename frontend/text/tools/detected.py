"""How one model writes tool calls and reasoning; found once per front end from its chat template.

Owns the choice of a format and of tags, and which of their markers are tokens. Builds the readers
and the grammars of single answers. Knows nothing of requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from frontend.text.deltas import CallsOnly, PlainReader, Reader
from frontend.text.reasoning import (
    ReasoningReader,
    ReasoningTags,
    detect_reasoning,
    is_open,
    reasoning_rules,
)
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer
from frontend.text.tools.format import ToolFormat
from frontend.text.tools.registry import GENERIC, detect
from frontend.text.tools.tool import ToolChoice


@dataclass(frozen=True)
class OutputStyle:
    """What a model's answers look like."""

    format: ToolFormat
    reasoning: ReasoningTags | None
    token_ids: Mapping[str, int]
    """The markers and tags that are one token each."""

    @classmethod
    def of(cls, template: ChatTemplate | None, tokenizer: Tokenizer) -> "OutputStyle":
        """Found from the texts of the template."""
        sources = {} if template is None else template.sources
        default = sources.get("default", "")
        with_tools = sources.get("tool_use", default)
        # a template that knows no tools is told of them in the prompt, which asks for generic calls
        knows_tools = with_tools and template and template.mentions("tools", tools=True)
        found = detect(with_tools) if knows_tools else GENERIC
        tags = detect_reasoning(default + with_tools)
        ids = {text: _token_id(tokenizer, text) for text in (*found.marker_tokens, *(tags or ()))}
        return cls(found, tags, {text: i for text, i in ids.items() if i is not None})

    @property
    def needs_grammar(self) -> bool:
        """Whether calls must be demanded by a grammar even where the model may also write text.

        So with the generic form: the model has not been trained to write it.
        """
        return self.format is GENERIC

    @property
    def reasoning_end(self) -> tuple[str, int | None]:
        """The tag that ends reasoning, and its token if it is one; no text without reasoning."""
        if self.reasoning is None:
            return "", None
        return self.reasoning.end, self.token_ids.get(self.reasoning.end)

    def reader(self, choice: ToolChoice | None, *, opened: bool = False) -> Reader:
        """A new reader of one answer; ``opened``: the prompt has begun its reasoning."""
        inner = self._inner(choice)
        if self.reasoning is None:
            return inner
        start, end = self.reasoning
        return ReasoningReader(inner, start, end, opened=opened)

    def _inner(self, choice: ToolChoice | None) -> Reader:
        if choice is None:
            return PlainReader()
        reader = self.format.reader(choice)
        return CallsOnly(reader) if choice.mode == "required" else reader

    def grammar(self, choice: ToolChoice) -> str:
        """The Lark grammar of calls (or text, where the model may choose), after any reasoning."""
        if self.reasoning is None:
            return self.format.grammar(choice, self.token_ids.get)
        rules = self.format.answer(choice, self.token_ids.get)
        thoughts = reasoning_rules(self.reasoning, self.token_ids.get)
        return f"start: reasoning? answer\n{thoughts}\n{rules}"

    def shown_special_ids(self, choice: ToolChoice | None) -> frozenset[int]:
        """Special tokens whose text the reader must see."""
        texts = [*(self.reasoning or ()), *(self.format.marker_tokens if choice else ())]
        return frozenset(self.token_ids[text] for text in texts if text in self.token_ids)

    def reasons_already(self, prompt: str, begun: str = "") -> bool:
        """Whether the rendered prompt has opened a reasoning section.

        ``begun``: the message at its end, if the model is to continue one.
        """
        return self.reasoning is not None and is_open(prompt, self.reasoning, begun)


def _token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The token that a text is, if it is one."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and tokenizer.token_text(ids[0]) == text else None
