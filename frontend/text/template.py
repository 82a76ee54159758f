"""Chat templates: a conversation to the text a model was trained on; runs in front ends.

Owns where a model's templates come from and what they are given, both as in transformers, so that
a prompt is what the model saw in training. How a template runs, and within which bounds, is
``sandbox.py``. Rendering holds the calling thread: callers keep long conversations off the event
loop. A render is bounded by ``RenderLimits``: its output, every value on the way, its steps, and
its processor time; what a single step may cost is bounded by the size of the values.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import CodeType, MappingProxyType, TracebackType
from typing import Any, Final

import jinja2
from jinja2 import meta

from common.errors import ErrorKind, RequestError, StartupError
from frontend.text.meter import LimitExceededError, Meter, RenderLimits
from frontend.text.model_files import (
    read_object,
    read_text,
    read_tokenizer_config,
    special_tokens,
)
from frontend.text.sandbox import RaisedError, Sandbox, compile_template, render

_RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
)
_NAMES = ("default", "tool_use", "rag")
"""Templates that are used; others are left alone, even broken ones."""
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients send what a model thought; templates read one of the first two."""
_CONTINUE_HERE = "CONTINUE_FINAL_MESSAGE_TAG "
"""Marks the end of the last message; the space shows whether the template trims messages.

The word is that of transformers, so that templates which measure or cut texts see the same."""
_MAX_MESSAGE_CHARACTERS = 500
_NO_CONTENT = re.compile(r"content['\"]?\]? +is +(not +)?none")
_CONTENT_AS_JSON = re.compile(r"content['\"]?\]? *\| *tojson")
_ADDED_ARGUMENTS = re.compile(r"arguments['\"]?\]? *[+~]")


class ChatTemplate:
    """A model's chat templates, compiled. Immutable, so any thread may render."""

    def __init__(
        self,
        sources: Mapping[str, str],
        special: Mapping[str, str] | None = None,
        *,
        origin: str = "the chat template",
        limits: RenderLimits | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``sources`` by name: ``default``, and perhaps ``tool_use`` and ``rag`` (documents)."""
        self._special = dict(special or {})
        self._limits = limits or RenderLimits()
        self._environment = Sandbox(now)
        self.sources: Mapping[str, str] = MappingProxyType(dict(sources))
        """The text of every template that the model has, by name."""
        self._templates = {
            name: _compiled(self._environment, source, self._special, origin, self._limits)
            for name, source in sources.items()
            if name in _NAMES
        }

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        tokenizer_config_path: str | Path | None = None,
        *,
        limits: RenderLimits | None = None,
    ) -> "ChatTemplate | None":
        """The templates of a model directory; None if it has none. Raises ``StartupError``.

        The first of these that has one: the tokenizer configuration given, ``chat_template.jinja``
        (with ``additional_chat_templates``), ``chat_template.json``, ``tokenizer_config.json``.
        """
        config = read_tokenizer_config(model_dir, tokenizer_config_path)
        found = _find(Path(model_dir), config, given=tokenizer_config_path)
        if found is None:
            return None
        origin, sources = found
        return cls(sources, special_tokens(config), origin=origin, limits=limits)

    def mentions(self, variable: str, *, tools: bool = False, documents: bool = False) -> bool:
        """Whether the template for such a chat reads a variable."""
        return variable in self._pick(tools=tools, documents=documents).variables

    def says(self, word: str, *, tools: bool = False, documents: bool = False) -> bool:
        """Whether a word stands anywhere in the template for such a chat."""
        return word in self._pick(tools=tools, documents=documents).words

    def knows_role(self, role: str, *, tools: bool = False, documents: bool = False) -> bool:
        """Whether the template for such a chat may write the messages of a role."""
        template = self._pick(tools=tools, documents=documents)
        return role in template.words or template.writes_any_role

    def writes_json(self, *, tools: bool = False, documents: bool = False) -> bool:
        """Whether the template for such a chat writes some messages' contents as JSON."""
        return self._pick(tools=tools, documents=documents).content_as_json

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation. Raises ``RequestError``.

        With ``continue_final_message`` the prompt ends where the last message's content ends, and
        ``add_generation_prompt`` is not looked at. Keys of messages that are None count as absent.
        ``template_kwargs`` are further variables; they may replace special tokens.
        """
        kwargs = dict(template_kwargs or {})
        for name in sorted(_RESERVED & kwargs.keys()):
            raise RequestError(
                ErrorKind.VALIDATION, f"`chat_template_kwargs` must not contain `{name}`"
            )
        if not messages:
            raise RequestError(ErrorKind.VALIDATION, "`messages` must not be empty")
        template = self._pick(tools=tools is not None, documents=documents is not None)
        try:
            meter = Meter(self._limits)
            chat = [_prepared(message) for message in messages]
            final = _mark_end(chat, template) if continue_final_message else None
            chat = [_with_calls(message, template) for message in chat]
            variables = {
                **self._special,
                **kwargs,
                "messages": chat,
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt and not continue_final_message,
            }
            variables = {name: meter.copy(value) for name, value in variables.items()}
            text = render(self._environment, template.code, variables, meter)
        except RequestError:
            raise
        except Exception as error:  # a template may raise anything
            raise RequestError(ErrorKind.TEMPLATE, _describe(error, template)) from None
        return text if final is None else _cut(text, final)

    def _pick(self, *, tools: bool, documents: bool) -> "_Compiled":
        """The template for chats with tools or documents (even none), if there is one.

        In transformers the one for documents (``rag``) has to be asked for by name. Here no request
        has a field for that, so it is taken where documents would not be read otherwise.
        """
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        template = self._templates.get(name)
        grounded = self._templates.get("rag")
        if documents and grounded and not (template and "documents" in template.variables):
            return grounded
        if template is None:
            raise RequestError(ErrorKind.TEMPLATE, "the model has no chat template named `default`")
        return template


# --- where templates come from -------------------------------------------------------------------


@dataclass(frozen=True)
class _Compiled:
    code: CodeType
    lines: dict[int, int]  # line of the code -> line of the template
    variables: frozenset[str]
    words: frozenset[str]
    """What the template consists of. They may be repeated to a client, unlike the conversation."""
    asks_for_none: bool
    """Whether a message that only calls is told by its content being none."""
    adds_arguments: bool
    """Whether the arguments of calls are added to texts, so have to be one."""
    content_as_json: bool
    """Whether some contents are written as JSON, so may be any value."""
    writes_any_role: bool
    """Whether messages are written of roles that the template does not know."""


_WORDS_OF_ERRORS: Final = re.findall(
    r"\w+",
    """Object Undefined JSON serializable access attribute attributes of is unsafe undefined has no
    element object dict list tuple str int float bool None NoneType type of type can only must be
    concatenate not to unsupported operand s for and or in callable iterable subscriptable
    unhashable argument arguments got an unexpected keyword missing required positional takes from
    given but was were loader this environment specified cannot assign on non namespace a that
    begin names with instances between supported than the it bad expected string integer slice
    indices""",
)
"""Enough to repeat what Jinja and Python usually say; other messages are left out."""


def _compiled(
    environment: Sandbox,
    source: str,
    special: Mapping[str, str],
    origin: str,
    limits: RenderLimits,
) -> _Compiled:
    try:
        code = compile_template(environment, source)
        variables = frozenset(meta.find_undeclared_variables(environment.parse(source)))
    except jinja2.TemplateSyntaxError as error:
        raise StartupError(
            f"The chat template in {origin} has an error in line {error.lineno}:"
            f" {(error.message or '').rstrip('.')}."
            " Repair it, or give another with --tokenizer-config-path."
        ) from None
    except Exception as error:  # the parser recurses, and Python refuses some of Jinja's code
        raise StartupError(
            f"The chat template in {origin} cannot be compiled ({type(error).__name__}: {error})."
            " Repair it, or give another with --tokenizer-config-path."
        ) from None
    module = jinja2.Template.from_code(environment, code, {})
    words = frozenset(re.findall(r"\w+", source))
    return _Compiled(
        code,
        {made: of for of, made in module.debug_info},
        variables,
        words,
        asks_for_none=_NO_CONTENT.search(source) is not None,
        adds_arguments=_ADDED_ARGUMENTS.search(source) is not None,
        content_as_json=_CONTENT_AS_JSON.search(source) is not None,
        writes_any_role=_writes_any_role(environment, code, special, limits),
    )


def _writes_any_role(
    environment: Sandbox, code: CodeType, special: Mapping[str, str], limits: RenderLimits
) -> bool:
    """Found by a try: whether a template writes, leaves out or refuses a stranger's message."""
    meter = Meter(limits)
    chat = [{"role": role, "content": f"said by {role}"} for role in ("user", "assistant", "else")]
    variables = {
        **special,
        "messages": meter.copy(chat),
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    try:
        return "said by else" in render(environment, code, variables, meter)
    except Exception:  # a template may raise anything
        return False


def _find(
    model_dir: Path, config: dict[str, Any], *, given: str | Path | None
) -> tuple[str, dict[str, str]] | None:
    """Where the templates are, and the templates by name."""
    origin = str(given or model_dir / "tokenizer_config.json")
    configured = _named(config.get("chat_template"), origin)
    if given is not None and configured:
        return origin, configured
    path = model_dir / "chat_template.jinja"
    text = read_text(path)
    named = {} if text is None else {"default": text}
    for extra in sorted((model_dir / "additional_chat_templates").glob("*.jinja")):
        named[extra.stem] = read_text(extra) or ""
    if named:
        return str(path), named
    path = model_dir / "chat_template.json"
    named = _named((read_object(path) or {}).get("chat_template"), str(path))
    if named:
        return str(path), named
    return (origin, configured) if configured else None


def _named(value: object, origin: str) -> dict[str, str]:
    """Templates by name, from a single one, a list of ``{name, template}`` or an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        value = {
            entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)
        }
    if isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(source, str) for name, source in value.items()
    ):
        return value
    raise StartupError(
        f"`chat_template` in {origin} must be a string or a list of objects with `name` and"
        " `template`: repair the file."
    )


# --- what they are given -------------------------------------------------------------------------


def _prepared(message: dict[str, Any]) -> dict[str, Any]:
    """A message without absent keys, and with its reasoning under both names templates read."""
    present = {name: value for name, value in message.items() if value is not None}
    for name in _REASONING_NAMES:
        if name in present:
            reasoning = present[name]
            return {"thinking": reasoning, **present, "reasoning_content": reasoning}
    return present


def _with_calls(message: dict[str, Any], template: _Compiled) -> dict[str, Any]:
    """A message whose calls are as the template takes them: some are written for OpenAI's form."""
    calls = message.get("tool_calls")
    if calls and template.asks_for_none and not message.get("content"):
        message = {**message, "content": None}
    if calls and template.adds_arguments:
        message = {**message, "tool_calls": [_with_text(call) for call in calls]}
    return message


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as JSON text."""
    given = call["function"].get("arguments", {})
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}


def _mark_end(chat: list[dict[str, Any]], template: _Compiled) -> str:
    """Mark where the last message's content ends; the content without the mark.

    The last text of a list of parts is meant; ``chat`` is changed, not the caller's parts. A
    template without the word ``content`` has no place for it, even if it writes whole messages.
    """
    last = chat[-1]
    content = last.get("content") if any("content" in word for word in template.words) else None
    if isinstance(content, str):
        last["content"] = content + _CONTINUE_HERE
        return content
    if isinstance(content, list):
        for index in reversed(range(len(content))):
            part = content[index]
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                marked = {**part, "text": part["text"] + _CONTINUE_HERE}
                last["content"] = [*content[:index], marked, *content[index + 1 :]]
                return str(part["text"])
    raise RequestError(ErrorKind.TEMPLATE, "the final message has no text that can be continued")


def _cut(text: str, final: str) -> str:
    """The text up to the mark; without trailing space if the template trims messages."""
    at = text.rfind(_CONTINUE_HERE.strip())
    if at < 0 or final.strip() not in text:
        raise RequestError(
            ErrorKind.TEMPLATE,
            "the template leaves out or changes the final message, so it cannot be continued",
        )
    kept = text[:at] if text.startswith(_CONTINUE_HERE, at) else text[:at].rstrip()
    # a template may write the message twice
    return kept.replace(_CONTINUE_HERE, "").replace(_CONTINUE_HERE.strip(), "")


# --- what the client reads when it fails ---------------------------------------------------------


def _describe(error: Exception, template: _Compiled) -> str:
    """What went wrong and where. A message that may quote the conversation is not repeated."""
    if isinstance(error, RaisedError):
        return str(error)[:_MAX_MESSAGE_CHARACTERS]
    if isinstance(error, LimitExceededError):
        return f"the template was stopped: {error}"
    if isinstance(error, RecursionError):
        return "the template or the conversation is nested too deeply"
    where = f"{type(error).__name__}{_line(error.__traceback__, template)}"
    if not isinstance(error, jinja2.TemplateError | TypeError):
        return where
    said = re.sub(r"[\w.]*Weighed(List|Dict|Tuple)", lambda found: found[1].lower(), str(error))
    if not template.words.union(_WORDS_OF_ERRORS).issuperset(re.findall(r"\w+", said)):
        return where
    return f"{where}: {said[:_MAX_MESSAGE_CHARACTERS]}"


def _line(trace: TracebackType | None, template: _Compiled) -> str:
    made = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == template.code.co_filename:
            made = trace.tb_lineno
        trace = trace.tb_next
    lines = [line for line in template.lines if line <= made]
    return f" in line {template.lines[max(lines)]}" if lines else ""
