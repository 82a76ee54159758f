"""How one model writes tool calls and reasoning; found once per front end from its chat template.

Owns the choice of a format and of tags, and which of their markers are tokens. Builds the readers
and the grammars of single answers. Knows nothing of requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from frontend.guidance.source import GrammarSource, after_reasoning
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
from frontend.text.tools.harmony import Harmony
from frontend.text.tools.registry import GENERIC, detect
from frontend.text.tools.tool import ToolChoice


@dataclass(frozen=True)
class OutputStyle:
    """What a model's answers look like."""

    format: ToolFormat
    reasoning: ReasoningTags | None
    """None, too, where the format itself tells reasoning apart."""
    token_ids: Mapping[str, int]
    """The markers, tags and ends that are one token each."""

    @classmethod
    def of(cls, template: ChatTemplate | None, tokenizer: Tokenizer) -> "OutputStyle":
        """Found from the texts of the template."""
        sources = {} if template is None else template.sources
        default = sources.get("default", "")
        with_tools = sources.get("tool_use", default)
        # a template that knows no tools is told of them in the prompt, which asks for generic calls
        knows_tools = with_tools and template and template.mentions("tools", tools=True)
        found = detect(with_tools)
        in_channels = isinstance(found, Harmony)
        if not knows_tools and not in_channels:
            found = GENERIC
        tags = None if in_channels else detect_reasoning(default + with_tools)
        texts = (*found.marker_tokens, *found.end_tokens, *(tags or ()))
        ids = {text: _token_id(tokenizer, text) for text in texts}
        return cls(found, tags, {text: i for text, i in ids.items() if i is not None})

    @property
    def needs_grammar(self) -> bool:
        """Whether calls must be demanded by a grammar even where the model may also write text.

        So with the generic form: the model has not been trained to write it.
        """
        return self.format is GENERIC

    @property
    def channels(self) -> Harmony | None:
        """The format, if all of an answer is written in it, tools or not."""
        return self.format if isinstance(self.format, Harmony) else None

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer, besides the model's own end tokens."""
        ends = self.format.end_tokens
        return [self.token_ids[text] for text in ends if text in self.token_ids]

    @property
    def reasoning_end(self) -> tuple[str, int | None]:
        """The tag that ends reasoning, and its token if it is one; no text without reasoning."""
        if self.reasoning is None:
            return "", None
        return self.reasoning.end, self.token_ids.get(self.reasoning.end)

    def reader(self, choice: ToolChoice | None, *, opened: str = "") -> Reader:
        """A new reader of one answer; ``opened``: what the prompt has begun (``opening``)."""
        inner = self._inner(choice, opened)
        if self.reasoning is None:
            return inner
        start, end = self.reasoning
        return ReasoningReader(inner, start, end, opened=bool(opened))

    def _inner(self, choice: ToolChoice | None, opened: str) -> Reader:
        reader: Reader
        if self.channels is not None:
            reader = self.channels.reader(choice, opened=opened)
        else:
            reader = PlainReader() if choice is None else self.format.reader(choice)
        return CallsOnly(reader) if choice is not None and choice.mode == "required" else reader

    def grammar(self, choice: ToolChoice) -> str:
        """The Lark grammar of calls (or text, where the model may choose), after any reasoning."""
        if self.reasoning is None:
            return self.format.grammar(choice, self.token_ids.get)
        rules = self.format.answer(choice, self.token_ids.get)
        thoughts = reasoning_rules(self.reasoning, self.token_ids.get)
        return f"start: reasoning? answer\n{thoughts}\n{rules}"

    def calls(self, choice: ToolChoice, opened: str) -> GrammarSource:
        """The grammar of an answer that goes on where the prompt has ended (``opening``)."""
        if self.channels is not None:
            return self.channels.demanded(choice, opened, self.token_ids.get)
        return self.framed(GrammarSource("lark", self.grammar(choice)), opened)

    def framed(self, source: GrammarSource, opened: str) -> GrammarSource:
        """A grammar of text, with what the model has to write before it."""
        if self.channels is not None:
            return self.channels.final(source, opened, self.token_ids.get)
        return after_reasoning(source, *self.reasoning_end) if opened else source

    def shown_special_ids(self, choice: ToolChoice | None) -> frozenset[int]:
        """Special tokens whose text the reader must see."""
        texts = [*(self.reasoning or ())]
        if choice is not None or self.channels is not None:
            texts += self.format.marker_tokens
        return frozenset(self.token_ids[text] for text in texts if text in self.token_ids)

    def opening(self, prompt: str, begun: str = "") -> str:
        """What the rendered prompt has begun of an answer's markup; empty if nothing.

        The tag of a reasoning section, or a message up to its text. ``begun``: what the client has
        written of the message at its end, if the model is to continue one.
        """
        if self.channels is not None:
            return self.channels.opening(prompt)
        reasons = self.reasoning is not None and is_open(prompt, self.reasoning, begun)
        return self.reasoning.start if self.reasoning is not None and reasons else ""


def _token_id(tokenizer: Tokenizer, text: str) -> int | None:
    """The token that a text is, if it is one."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and tokenizer.token_text(ids[0]) == text else None
