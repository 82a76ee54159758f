"""Answers in channels, as gpt-oss writes them ("harmony"): all of an answer is messages.

A message is a header, ``<|message|>``, a text and an end. The header holds who speaks, after
``<|start|>``; a channel; and whom it is for, after either of them. The channel ``analysis`` is
reasoning, a message for ``functions.NAME`` is a call, and everything else is content. Prompts end
in a header: ``opened`` is what they have begun of a message, up to its text.
"""

from typing import ClassVar

from common.errors import ErrorKind, RequestError
from frontend.guidance.source import GrammarSource, framed
from frontend.text.deltas import Content, Reader, Reasoning
from frontend.text.tools import lark
from frontend.text.tools.calls import Calls
from frontend.text.tools.format import TokenId, ToolFormat
from frontend.text.tools.incoming import BLANK, Incoming, Kind, ScriptReader, Wait
from frontend.text.tools.tool import ToolChoice

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = (_END, _CALL, _RETURN)
_MARKERS = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS)
_ASSISTANT = "assistant"
_FUNCTIONS = "functions."
_TYPES = ("json", "code")
"""Of texts, where no ``<|constrain|>`` stands before them."""
_MAX_WORD = 64
_BETWEEN = "\n\n"
"""Stands between the texts of two messages of a kind."""


class Harmony(ToolFormat):
    """``<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>``."""

    name: ClassVar[str] = "harmony"
    marker_tokens: ClassVar[tuple[str, ...]] = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, _END)
    end_tokens: ClassVar[tuple[str, ...]] = (_RETURN, _CALL)
    one_by_one: ClassVar[bool] = True

    def recognises(self, template_source: str) -> bool:
        """Messages with channels."""
        return all(sign in template_source for sign in (_START, _CHANNEL, _MESSAGE))

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """What comes after ``<|start|>assistant``: a call; or a text, if the model may choose."""
        channel, message = lark.marker(_CHANNEL, token_id), lark.marker(_MESSAGE, token_id)
        constrain = lark.marker(_CONSTRAIN, token_id)
        rules = [
            f"answer: {lark.one_of(choice.tools, 'call')}",
            f'type: " "? {constrain} "json" | " json"',
        ]
        if choice.mode == "auto":
            rules[0] += f' | {channel} "final" {message} TEXT'
            rules.append(f"TEXT: {lark.text_without(_END)}")
        for index, tool in enumerate(choice.tools):
            to = lark.literal(f" to={_FUNCTIONS}{tool.name}")
            heads = f'({channel} "commentary" {to} | {to} {channel} "commentary")'
            rules.append(f"call_{index}: {heads} type? {message} arguments_{index}")
        return "\n".join([*rules, lark.arguments(choice.tools)])

    def reader(self, choice: ToolChoice | None, *, opened: str = "") -> Reader:
        """Reads one answer, which goes on where the prompt has ended; calls only of what there is.

        Nothing is left of the markup: text outside of messages is content.
        """

        def script(incoming: Incoming) -> Wait[None]:
            return _Messages(incoming, None if choice is None else Calls(incoming, choice)).read()

        reader = ScriptReader(script)
        reader.push(opened)
        return reader

    def opening(self, prompt: str) -> str:
        """What a prompt has begun of a message, up to its text; empty if none is open."""
        at = prompt.rfind(_START)
        last = prompt[at:] if at >= 0 else ""
        if any(end in last for end in _ENDS):
            return ""
        head, message, _ = last.partition(_MESSAGE)
        return head + message

    def demanded(self, choice: ToolChoice, opened: str, token_id: TokenId) -> GrammarSource:
        """The grammar of an answer, after any reasoning."""
        rules = [_lead(opened, token_id), self.answer(choice, token_id)]
        return GrammarSource("lark", "\n".join(["start: lead answer", *rules]))

    def final(self, source: GrammarSource, opened: str, token_id: TokenId) -> GrammarSource:
        """A client's grammar, which is that of the final message's text, after any reasoning."""
        if opened.endswith(f"{_CHANNEL}final{_MESSAGE}"):
            return source
        head = f'{lark.marker(_CHANNEL, token_id)} "final" {lark.marker(_MESSAGE, token_id)}'
        return framed(source, f"start: lead {head} @answer\n{_lead(opened, token_id)}")


def _lead(opened: str, token_id: TokenId) -> str:
    """Rules: ``lead`` ends what the prompt has begun, may reason, and begins a message.

    Raises RequestError (VALIDATION) where the prompt leaves no place for it.
    """
    channel, message = lark.marker(_CHANNEL, token_id), lark.marker(_MESSAGE, token_id)
    begin = f'{lark.marker(_START, token_id)} "{_ASSISTANT}"'
    thoughts = f'({channel} "analysis" {message} thought {begin})?'
    if opened.endswith(_MESSAGE):
        lead = f"thought {begin}"
    elif not opened:
        lead = f"{begin} {thoughts}"
    elif opened == _START + _ASSISTANT:
        lead = thoughts
    else:
        raise RequestError(
            ErrorKind.VALIDATION,
            "the prompt ends inside of a message's header: its answer cannot be constrained",
        )
    return f"lead: {lead}\n{lark.up_to('thought', _END, token_id)}"


class _Messages:
    """The messages of one answer."""

    def __init__(self, incoming: Incoming, calls: Calls | None) -> None:
        self._incoming = incoming
        self._calls = calls
        names = [] if calls is None else calls.names
        self._names = sorted(names, key=len, reverse=True)
        self._said: set[Kind] = set()

    def read(self) -> Wait[None]:
        """All of them."""
        incoming = self._incoming
        marked = False
        while True:
            yield from incoming.blank()
            marker = yield from incoming.next_of(_MARKERS)
            if marker:
                incoming.at += len(marker)
                incoming.drop()
                marked = True
                if marker in (_START, _CHANNEL, _MESSAGE):
                    yield from self._message(marker)
            elif marked and incoming.exhausted:
                incoming.drop()
                return
            elif not (yield from self._text(Content)):
                return

    def _message(self, marker: str) -> Wait[None]:
        """One message, of whose header the first marker has been read; any of it may be missing."""
        incoming, calls = self._incoming, self._calls
        others, channel = False, ""
        tool: str | None = None
        if marker == _START:
            others = not (yield from incoming.take(_ASSISTANT))
            if others:
                yield from self._word()
            tool = yield from self._recipient()
            if (yield from incoming.take(_CHANNEL)):
                marker = _CHANNEL
        if marker == _CHANNEL:
            channel = yield from self._word()
            tool = (yield from self._recipient()) or tool
        if marker == _CHANNEL or tool is not None:
            yield from self._type()
        elif marker == _START:
            yield from incoming.take(_MESSAGE)
        incoming.drop()
        if tool and calls is not None and not calls.full:
            yield from incoming.blank()
            incoming.drop()
            if (yield from calls.arguments(tool)):
                return
        yield from self._text(Reasoning if others or channel == "analysis" else Content)

    def _recipient(self) -> Wait[str | None]:
        """Read past whom a message is for: a tool's name, empty for others; None if nobody."""
        incoming = self._incoming
        before = incoming.held
        yield from incoming.blank()
        if not (yield from incoming.take("to=")):
            incoming.reread(before)
            return None
        yield from incoming.take(_FUNCTIONS)
        begin = incoming.held
        for name in self._names:
            if (yield from incoming.take(name)):
                after = yield from incoming.peek()
                if not after or after == "<" or after in BLANK:
                    return name
            incoming.reread(begin)
        yield from self._word()
        return ""

    def _type(self) -> Wait[None]:
        """Read past what kind of text it is, and the marker before the text."""
        incoming = self._incoming
        before = incoming.held
        yield from incoming.blank()
        if (yield from incoming.take(_CONSTRAIN)):
            yield from incoming.blank()
            yield from self._word()
        else:
            for name in _TYPES:
                if (yield from incoming.take(name)):
                    break
        yield from incoming.blank()
        if not (yield from incoming.take(_MESSAGE)) and not incoming.exhausted:
            incoming.reread(before)

    def _word(self) -> Wait[str]:
        """Read a word of a header."""
        word = ""
        while len(word) < _MAX_WORD:
            character = yield from self._incoming.peek()
            if not character or character == "<" or character in BLANK:
                break
            self._incoming.at += 1
            word += character
        return word

    def _text(self, kind: Kind) -> Wait[bool]:
        """Keep text up to a marker that ends it, which stays; False at the end."""
        incoming = self._incoming
        if not (yield from incoming.next_of(_MARKERS)) and (yield from incoming.peek()):
            if kind in self._said:
                incoming.give(kind(_BETWEEN))
            self._said.add(kind)
        while (yield from incoming.until(*_MARKERS, kind=kind)):
            misplaced = (yield from incoming.take(_MESSAGE)) or (
                yield from incoming.take(_CONSTRAIN)
            )
            if not misplaced:
                return True
            incoming.drop()
        return False
