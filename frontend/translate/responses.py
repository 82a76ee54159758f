"""Requests of ``/v1/responses`` as chat requests: items, tools, formats, limits.

Runs in front ends. Every refusal names the field as clients of this API know it; what is refused
for other reasons is found further on. Knows nothing of answers.
"""

from typing import Any

from frontend import limits
from frontend.guidance.forms import MAX_DEPTH, response_format
from frontend.limits import invalid
from frontend.nesting import depth_exceeds
from frontend.schema import responses as schema
from frontend.schema.openai import ChatBody, FunctionDefinition, ToolDefinition
from frontend.translate.responses_input import conversation
from frontend.translate.tools import MAX_TOOLS

MAX_METADATA = 16
MAX_METADATA_NAME = 64
MAX_METADATA_TEXT = 512
MAX_TOOL_NAME = 256

Choice = str | dict[str, Any] | None


def chat_body(body: schema.ResponsesBody) -> ChatBody:
    """A whole request. Raises RequestError (VALIDATION)."""
    limits.check_max_new_tokens("max_output_tokens", body.max_output_tokens)
    _check_metadata(body.metadata or {})
    logprobs = wants_logprobs(body)
    if body.top_logprobs and not logprobs:
        raise invalid(f"`top_logprobs` needs `include` with `{schema.LOGPROBS}`")
    tools, choice = _tools(body)
    return ChatBody(
        model=body.model,
        messages=conversation(body),
        # A last message of the assistant is not continued: this API always answers with a new one.
        continue_final_message=False,
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        logprobs=logprobs,
        top_logprobs=body.top_logprobs,
        response_format=_format(body),
        tools=tools or None,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=None if body.reasoning is None else body.reasoning.effort,
        chat_template_kwargs=_template_kwargs(body),
        cache_salt=body.cache_salt,
    )


def wants_logprobs(body: schema.ResponsesBody) -> bool:
    """Whether the text comes with the log-probabilities of its tokens."""
    return schema.LOGPROBS in (body.include or [])


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MAX_METADATA:
        raise invalid(f"`metadata` supports up to {MAX_METADATA} names. Given: {len(metadata)}")
    if any(len(name) > MAX_METADATA_NAME for name in metadata):
        raise invalid(f"`metadata` names have up to {MAX_METADATA_NAME} characters")
    if any(len(text) > MAX_METADATA_TEXT for text in metadata.values()):
        raise invalid(f"`metadata` texts have up to {MAX_METADATA_TEXT} characters")


# --- tools ---------------------------------------------------------------------------------------


def _tools(body: schema.ResponsesBody) -> tuple[list[ToolDefinition], Choice]:
    """The tools that may be called, and who decides, in the words of chat."""
    given = body.tools or []
    if len(given) > MAX_TOOLS:
        raise invalid(f"`tools` supports up to {MAX_TOOLS} tools. Given: {len(given)}")
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(given)]
    choice = body.tool_choice
    if choice == "none":
        return [], "none"  # so that the text may have a format
    if not isinstance(choice, schema.NamedChoice):
        return tools, choice
    if choice.type == "function":
        if choice.name is None:
            raise invalid("`tool_choice` of type `function` needs `name`")
        return tools, {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools":
        return _allowed(choice, tools), choice.mode
    raise invalid(
        f"`tool_choice.type` is `{choice.type[:40]}`: only `function` and `allowed_tools` are"
        " supported"
    )


def _tool(tool: schema.FunctionTool, where: str) -> ToolDefinition:
    name = _function(tool, where)
    if not 1 <= len(name) <= MAX_TOOL_NAME or not name.isprintable():
        raise invalid(f"`{where}.name` must have 1 to {MAX_TOOL_NAME} printable characters")
    if depth_exceeds(tool.parameters, MAX_DEPTH):
        raise invalid(f"`{where}.parameters` must not nest deeper than {MAX_DEPTH} levels")
    return ToolDefinition(
        function=FunctionDefinition(
            name=name, description=tool.description, parameters=tool.parameters
        )
    )


def _function(tool: schema.FunctionTool | schema.AllowedTool, where: str) -> str:
    """The name of a tool that is a function."""
    if tool.type != "function":
        raise invalid(
            f"`{where}.type` is `{tool.type[:40]}`: only `function` tools, which the client runs,"
            " are supported"
        )
    if tool.name is None:
        raise invalid(f"`{where}` needs `name`")
    return tool.name


def _allowed(choice: schema.NamedChoice, tools: list[ToolDefinition]) -> list[ToolDefinition]:
    """Those of the tools that a choice allows."""
    if choice.mode is None or not choice.tools:
        raise invalid("`tool_choice` of type `allowed_tools` needs `mode` and `tools`")
    known = {tool.function.name: tool for tool in tools if tool.function}
    names = [_function(tool, f"tool_choice.tools[{i}]") for i, tool in enumerate(choice.tools)]
    if not known.keys() >= set(names):
        raise invalid("`tool_choice.tools` names a tool that is not among `tools`")
    return [known[name] for name in dict.fromkeys(names)]


# --- text and reasoning --------------------------------------------------------------------------


def _format(body: schema.ResponsesBody) -> dict[str, Any] | None:
    """The format in the words of chat."""
    given = None if body.text is None else body.text.format
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return {"type": "json_object"}
    if given.schema is None:
        raise invalid("`text.format` of type `json_schema` needs `schema`")
    translated = {"type": "json_schema", "json_schema": {"schema": given.schema}}
    response_format(translated, "text.format")  # what is wrong with it is told by that name
    return translated


def _template_kwargs(body: schema.ResponsesBody) -> dict[str, Any] | None:
    """Verbosity under the name that models' templates give it."""
    if body.text is None or body.text.verbosity is None:
        return None
    return {"verbosity": body.text.verbosity}
