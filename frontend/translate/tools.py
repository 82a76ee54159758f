"""``tools`` and ``tool_choice`` of a chat request: which functions there are and who chooses.

TGI's forms are accepted beside OpenAI's. Knows nothing of how models write calls.
"""

import re
from typing import Any

from common.errors import ErrorKind, RequestError
from frontend.schema.openai import ChatBody, ToolDefinition
from frontend.text.tools.tool import Mode, Tool, ToolChoice

MAX_TOOLS = 128
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


def choice_of(body: ChatBody) -> ToolChoice | None:
    """The tools of this answer; None if the model is to write text. Raises RequestError (TOOL)."""
    tools = [_tool(definition, i) for i, definition in enumerate(body.tools or [])]
    if len(tools) > MAX_TOOLS:
        raise _error(f"`tools` supports up to {MAX_TOOLS} tools. Given: {len(tools)}")
    if len({tool.name for tool in tools}) < len(tools):
        raise _error("`tools` holds two tools of the same name")
    match body.tool_choice:
        case "none":
            return None
        case None | "auto":
            return _among(tools, "auto", body) if tools else None
        case "required":
            if not tools:
                raise _error("`tool_choice` is `required`, but there are no `tools`")
            return _among(tools, "required", body)
        case {"type": "allowed_tools", **rest}:
            mode, allowed = _allowed(rest.get("allowed_tools"), tools)
            return _among(allowed, mode, body)
    chosen = [tool for tool in tools if tool.name == _named(body.tool_choice, "tool_choice")]
    if not chosen:
        raise _error("`tool_choice` names a tool that is not among `tools`")
    return ToolChoice((chosen[0],), "required", parallel=False)


def _among(tools: list[Tool], mode: Mode, body: ChatBody) -> ToolChoice:
    return ToolChoice(tuple(tools), mode, parallel=body.parallel_tool_calls is not False)


def _allowed(given: Any, tools: list[Tool]) -> tuple[Mode, list[Tool]]:
    """Those of the tools that may be called, in their own order, and who decides."""
    where = "tool_choice.allowed_tools"
    match given:
        case {"mode": "auto" | "required" as mode, "tools": [_, *_] as listed}:
            names = [_named(tool, f"{where}.tools[{i}]") for i, tool in enumerate(listed)]
        case _:
            raise _error(f"`{where}` needs `mode`, which is `auto` or `required`, and `tools`")
    if not {tool.name for tool in tools}.issuperset(names):
        raise _error(f"`{where}.tools` names a tool that is not among `tools`")
    return mode, [tool for tool in tools if tool.name in names]


def _named(given: Any, where: str) -> str:
    """The name of the tool that is meant: TGI takes any other word for one."""
    if isinstance(given, str):
        return given
    match given:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise _error(f"`{where}` must be a string or an object that names a function")


def _tool(definition: ToolDefinition, index: int) -> Tool:
    function = definition.function
    if function is None:
        if definition.type != "function":
            raise _error(
                f"`tools[{index}].type` is `{definition.type[:40]}`: only `function` tools, which"
                " the client runs, are supported"
            )
        raise _error(f"`tools[{index}]` needs `function`")
    if not _NAME.fullmatch(function.name):
        raise _error(f"`tools[{index}].function.name` must have 1 to 256 printable characters")
    schema = function.parameters if function.parameters is not None else function.arguments
    return Tool(function.name, function.description or "", schema or {})


def _error(message: str) -> RequestError:
    return RequestError(ErrorKind.TOOL, message)
