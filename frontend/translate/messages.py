"""Anthropic's requests as chat requests: system prompt, blocks, tools, thinking, limits.

Runs in front ends. Every refusal names the field as Anthropic's clients know it; what is refused
for other reasons is found further on. Knows nothing of answers.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec

from common.settings import Settings
from frontend import limits
from frontend.limits import invalid
from frontend.schema import messages as schema
from frontend.schema.openai import ChatBody, FunctionDefinition, Message, ToolDefinition
from frontend.translate.effort import trained

_JOINED_ROLES = ("user", "assistant")
_BETWEEN_TURNS = "\n\n"
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def chat_body(body: schema.MessagesBody, settings: Settings) -> ChatBody:
    """A whole request. Raises RequestError (VALIDATION)."""
    temperature = 1.0 if body.temperature is None else body.temperature
    if not 0.0 <= temperature <= 1.0:
        raise invalid("`temperature` must be >= 0 and <= 1")
    stops, most = body.stop_sequences or [], settings.max_stop_sequences
    if len(stops) > most:
        raise invalid(f"`stop_sequences` supports up to {most} of them. Given: {len(stops)}")
    limits.check_stop_lengths("stop_sequences", stops)
    return msgspec.structs.replace(
        prompt_body(body),
        max_tokens=body.max_tokens,
        temperature=temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=stops,
        response_format=_response_format(body.output_config),
    )


def _response_format(config: schema.OutputConfig | None) -> dict[str, Any] | None:
    if config is None or config.format is None:
        return None
    return {"type": "json_schema", "json_schema": {"schema": config.format.schema}}


def prompt_body(body: schema.CountTokensBody) -> ChatBody:
    """What makes the prompt. Raises RequestError (VALIDATION)."""
    if not body.messages:
        raise invalid("`messages` cannot be empty")
    choice = body.tool_choice
    return ChatBody(
        model=body.model,
        messages=_conversation(body),
        tools=[_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or [])] or None,
        tool_choice=_tool_choice(choice, tools=bool(body.tools)),
        parallel_tool_calls=not (choice is not None and choice.disable_parallel_tool_use),
        chat_template_kwargs=_template_kwargs(body),
    )


# --- messages ------------------------------------------------------------------------------------


def _conversation(body: schema.CountTokensBody) -> list[Message]:
    """The messages as chat knows them; turns of one speaker that follow each other are joined."""
    system = "".join(_texts(body.system or "", "system"))
    conversation = [Message(role="system", content=system)] if system else []
    for role, turns in groupby(_turns(body.messages), key=lambda message: message.role):
        if role in _JOINED_ROLES:
            conversation.append(_joined(list(turns)))
        else:
            conversation.extend(turns)
    return conversation


def _turns(
    messages: Sequence[schema.UserMessage | schema.AssistantMessage | schema.SystemMessage],
) -> Iterator[Message]:
    called: dict[str, str] = {}
    for i, message in enumerate(messages):
        where = f"messages[{i}].content"
        if isinstance(message, schema.UserMessage):
            yield from _user(message, called, where)
        elif isinstance(message, schema.AssistantMessage):
            yield _assistant(message, called)
        else:
            yield Message(role="system", content="".join(_texts(message.content, where)))


def _user(message: schema.UserMessage, called: dict[str, str], where: str) -> Iterator[Message]:
    """Results of calls and text between them, in order."""
    if isinstance(message.content, str):
        yield Message(role="user", content=message.content)
        return
    texts: list[str] = []
    for k, block in enumerate(message.content):
        if not isinstance(block, schema.ToolResultBlock):
            texts.append(_text(block, f"{where}[{k}]"))
            continue
        if texts:
            yield Message(role="user", content="".join(texts))
            texts = []
        yield _tool_result(block, called, f"{where}[{k}]")
    if texts or not message.content:
        yield Message(role="user", content="".join(texts))


def _tool_result(block: schema.ToolResultBlock, called: dict[str, str], where: str) -> Message:
    """The result of an earlier call. Templates know no errors, so the text says that it is one."""
    if block.tool_use_id not in called:
        raise invalid(f"`{where}.tool_use_id` names no `tool_use` block before it")
    text = "".join(_texts(block.content or "", f"{where}.content"))
    if block.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return Message(
        role="tool",
        content=text,
        tool_call_id=block.tool_use_id,
        name=called[block.tool_use_id],
    )


def _assistant(message: schema.AssistantMessage, called: dict[str, str]) -> Message:
    """A turn of the model; ``called`` learns the names of its calls."""
    if isinstance(message.content, str):
        return Message(role="assistant", content=message.content)
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, schema.TextBlock):
            texts.append(block.text)
        elif isinstance(block, schema.ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, schema.ToolUseBlock):
            called[block.id] = block.name
            function = {"name": block.name, "arguments": block.input}
            calls.append({"id": block.id, "type": "function", "function": function})
    return Message(
        role="assistant",
        content="".join(texts),
        tool_calls=calls or None,
        reasoning_content="".join(thoughts) or None,
    )


def _joined(turns: list[Message]) -> Message:
    """One turn of all; many templates insist that speakers take turns."""
    if len(turns) == 1:
        return turns[0]
    thoughts = [turn.reasoning_content for turn in turns if turn.reasoning_content]
    return Message(
        role=turns[0].role,
        content=_BETWEEN_TURNS.join(str(turn.content) for turn in turns if turn.content),
        tool_calls=[call for turn in turns for call in turn.tool_calls or []] or None,
        reasoning_content=_BETWEEN_TURNS.join(thoughts) or None,
    )


def _texts(
    content: str | Sequence[schema.TextBlock | schema.ImageBlock | schema.DocumentBlock],
    where: str,
) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [_text(block, f"{where}[{k}]") for k, block in enumerate(content)]


def _text(block: schema.TextBlock | schema.ImageBlock | schema.DocumentBlock, where: str) -> str:
    if isinstance(block, schema.TextBlock):
        return block.text
    kind = "image" if isinstance(block, schema.ImageBlock) else "document"
    raise invalid(f"`{where}` is `{kind}`: this model reads only text")


# --- tools and thinking --------------------------------------------------------------------------


def _tool(tool: schema.Tool, where: str) -> ToolDefinition:
    if tool.type not in (None, "custom"):
        raise invalid(
            f"`{where}.type` is `{tool.type[:40]}`: only `custom` tools, which the client runs,"
            " are supported"
        )
    if not _TOOL_NAME.fullmatch(tool.name):
        raise invalid(f"`{where}.name` must have 1 to 128 letters, digits, `_` or `-`")
    if tool.input_schema is None:
        raise invalid(f"`{where}` needs `input_schema`")
    return ToolDefinition(
        function=FunctionDefinition(
            name=tool.name, description=tool.description, parameters=tool.input_schema
        )
    )


def _tool_choice(choice: schema.ToolChoice | None, *, tools: bool) -> str | dict[str, Any] | None:
    """The same in OpenAI's words."""
    if choice is None:
        return None
    if choice.type in ("auto", "none"):
        return choice.type
    if not tools:
        raise invalid(f"`tool_choice` is `{choice.type}`, but there are no `tools`")
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise invalid("`tool_choice` of type `tool` needs `name`")
    return {"type": "function", "function": {"name": choice.name}}


def _template_kwargs(body: schema.CountTokensBody) -> dict[str, Any] | None:
    """Thinking and effort under the names that models' templates give them."""
    kwargs: dict[str, Any] = {}
    if body.thinking is not None:
        thinks = body.thinking.type != "disabled"
        kwargs = {"enable_thinking": thinks, "thinking": thinks}
        if thinks and body.thinking.budget_tokens is not None:
            kwargs["thinking_budget"] = body.thinking.budget_tokens
    if body.output_config is not None and body.output_config.effort is not None:
        kwargs["reasoning_effort"] = trained(body.output_config.effort)
    return kwargs or None
