"""A chat request's conversation: its messages as templates expect them, and the rendered prompt.

What all chat surfaces and ``/chat_tokenize`` share; runs in front ends. Knows nothing of answers,
nor of how models write calls.
"""

import hashlib
import re
from typing import Any, NamedTuple

import msgspec

from common.errors import ErrorKind, RequestError
from frontend.limits import invalid
from frontend.nesting import MAX_DEPTH, depth_exceeds
from frontend.schema.openai import ChatBody, Message
from frontend.services import Services
from frontend.text.tools.one_by_one import one_by_one
from frontend.text.tools.prompt import appended, tool_text, with_calls_written
from frontend.text.tools.registry import GENERIC
from frontend.text.tools.tool import ToolChoice
from frontend.translate.effort import effort_variables
from frontend.translate.parts import joined

MAX_MESSAGES = 4096
_ROLES = ("system", "user", "assistant", "tool")
"""What templates make of these is theirs; the names of others may be misspelt."""
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


class Prompt(NamedTuple):
    """A conversation as the model reads it."""

    text: str
    begun: str
    """The last message as its client wrote it, if the model continues it."""


def render(body: ChatBody, services: Services, choice: ToolChoice | None = None) -> Prompt:
    """The prompt of a chat request. Raises RequestError."""
    template = services.template
    if template is None:
        raise RequestError(
            ErrorKind.TEMPLATE,
            "the model has no chat template: start the server with --tokenizer-config-path, or ask"
            " for text that continues a prompt (/generate, /v1/completions)",
        )
    messages = messages_of(body)
    last = messages[-1]["content"]
    if services.style.format.short_ids:
        _shorten_ids(messages)
    documents = body.documents or None
    tools = None if choice is None else [tool.document() for tool in choice.tools]
    variables = _variables(body, services)
    size = _size([messages, tools, documents, variables])
    chat = {"tools": choice is not None, "documents": documents is not None}
    if documents is not None and not template.mentions("documents", **chat):
        raise invalid("`documents` cannot be used: this model's chat template does not read them")
    knows_developer = template.says("developer", **chat)
    for i, message in enumerate(messages):
        role = message["role"] = _role(message["role"], knows_developer=knows_developer)
        if role not in _ROLES and not template.knows_role(role, **chat):
            raise invalid(
                f"`messages[{i}].role` is `{role[:40]}`: this model's chat template knows no such"
            )
    if not template.knows_role("tool", **chat):
        messages = _told_by_users(messages)
    writes_calls = template.says("tool_calls", **chat) or not template.says("content", **chat)
    if services.style.format is GENERIC and not writes_calls:
        messages = with_calls_written(messages)
    goes_on = _goes_on(body, messages[-1])
    if choice is not None:
        added = body.tool_prompt or ""
        if not template.mentions("tools", **chat):
            added = tool_text(choice.tools, body.tool_prompt)
        if added:
            at = len(messages) - 1 if goes_on else len(messages)  # not into the unfinished message
            messages = [*appended(messages[:at], added), *messages[at:]]
    if services.style.format.one_by_one:
        messages = one_by_one(messages, as_objects=template.writes_json(**chat))
    text = services.offload.run(
        size,
        lambda: template.render(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=not goes_on and body.add_generation_prompt is not False,
            continue_final_message=goes_on,
            template_kwargs=variables,
        ),
    )
    return Prompt(text, last if goes_on else "")


def _variables(body: ChatBody, services: Services) -> dict[str, Any]:
    """What the template is told besides."""
    if body.reasoning_effort == "none" and services.style.channels is not None:
        raise invalid("the reasoning effort cannot be `none`: this model always reasons; try `low`")
    return effort_variables(body.reasoning_effort) | (body.chat_template_kwargs or {})


def messages_of(body: ChatBody) -> list[dict[str, Any]]:
    """The messages as templates expect them; None stands for what is absent."""
    if not body.messages:
        raise invalid("`messages` cannot be empty")
    if len(body.messages) > MAX_MESSAGES:
        raise invalid(
            f"`messages` supports up to {MAX_MESSAGES} messages. Given: {len(body.messages)}"
        )
    return [_message(message, f"messages[{i}]") for i, message in enumerate(body.messages)]


def _shorten_ids(messages: list[dict[str, Any]]) -> None:
    """Ids of calls as some templates insist on them; what is called alike stays alike."""

    def short(given: Any) -> str:
        text = str(given)
        if _SHORT_ID.fullmatch(text):
            return text
        return hashlib.sha256(text.encode()).hexdigest()[:9]

    for message in messages:
        if message["tool_call_id"] is not None:
            message["tool_call_id"] = short(message["tool_call_id"])
        for call in message["tool_calls"] or []:
            if call.get("id") is not None:
                call["id"] = short(call["id"])


def _role(role: str, *, knows_developer: bool) -> str:
    """OpenAI's newer and older names for roles, as templates know them."""
    if role == "developer" and not knows_developer:
        return "system"
    return "tool" if role == "function" else role


def _told_by_users(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of calls as what the user says, with what the user says next.

    For templates that know no other speakers; many of them insist that the two take turns.
    """
    if all(message["role"] != "tool" for message in messages):
        return messages
    told: list[dict[str, Any]] = []
    for message in messages:
        role = "user" if message["role"] == "tool" else message["role"]
        if told and role == told[-1]["role"] == "user":
            told[-1] = {**told[-1], "content": f"{told[-1]['content']}\n{message['content']}"}
        else:
            told.append({**message, "role": role})
    return told


def _goes_on(body: ChatBody, last: dict[str, Any]) -> bool:
    """Whether the model continues the last message instead of beginning one.

    Without a word of the client it does so, as in TGI, if the assistant has begun to say something.
    """
    if body.continue_final_message and body.add_generation_prompt:
        raise invalid("`continue_final_message` and `add_generation_prompt` exclude each other")
    if body.continue_final_message is not None:
        return body.continue_final_message
    begun = last["role"] == "assistant" and last["content"] and not last["tool_calls"]
    return bool(begun) and not body.add_generation_prompt


def _size(values: list[Any]) -> int:
    """About the characters of what a template is given."""
    return len(msgspec.json.encode(values))


def _message(message: Message, where: str) -> dict[str, Any]:
    if message.audio is not None:
        raise invalid(f"`{where}.audio` is not supported: only text is")
    calls = [
        _call(call, f"{where}.tool_calls[{k}]") for k, call in enumerate(message.tool_calls or [])
    ]
    if message.function_call is not None:
        calls.append(_call({"function": message.function_call}, f"{where}.function_call"))
    content = None if message.content is None else joined(message.content, f"{where}.content")
    if content is None:
        content = message.refusal
    if content is None and not calls:
        raise invalid(f"`{where}` needs `content` or `tool_calls`")
    return {
        "role": message.role,
        "content": content or "",
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "tool_calls": calls or None,
        "reasoning_content": message.reasoning_content or message.reasoning,
    }


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    """A tool call with its arguments as an object, which is how templates write them best.

    OpenAI sends the JSON text of the arguments, TGI the object, also under the name ``parameters``.
    Some templates write a function as it is: its name comes first, as models write it themselves.
    """
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(f"`{where}` needs `function` with a `name`")
    given = function.get("arguments")
    if given is None:
        given = function.get("parameters")
    known = {"name": function["name"], "arguments": _arguments(given)}
    rest = {name: value for name, value in function.items() if name not in (*known, "parameters")}
    return {"type": "function"} | _present({**call, "function": known | _present(rest)})


def _present(given: dict[str, Any]) -> dict[str, Any]:
    """Without what is null: clients send back what they were told, with every field there is."""
    return {name: value for name, value in given.items() if value is not None}


def _arguments(given: Any) -> Any:
    """An object, if it is one in any form; else what was given: the template has to judge."""
    if given is None or given == "":
        return {}
    if not isinstance(given, str):
        return given
    too_deep = invalid("the conversation is nested too deeply")
    try:
        decoded = msgspec.json.decode(given)
    except msgspec.DecodeError:
        return given
    except RecursionError:
        raise too_deep from None
    if depth_exceeds(decoded, MAX_DEPTH):
        raise too_deep
    return decoded if isinstance(decoded, dict) else given
