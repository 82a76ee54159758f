"""The ``input`` of ``/v1/responses`` as messages of a chat.

Runs in front ends. What the model said in one turn comes as several items (reasoning, a message,
calls), which chat knows as one message. Knows nothing of the request's other fields but the
instructions, and of answers.
"""

from typing import Any

from common.errors import RequestError
from frontend.limits import invalid
from frontend.schema import responses as schema
from frontend.schema.openai import Message
from frontend.translate.conversation import MAX_MESSAGES
from frontend.translate.parts import joined

_ROLES = ("user", "assistant", "system", "developer")
_BETWEEN_ITEMS = "\n\n"


def conversation(body: schema.ResponsesBody) -> list[Message]:
    """The instructions and all items. Raises RequestError (VALIDATION)."""
    if not body.input:
        raise invalid("`input` cannot be empty")
    begin = [Message(role="system", content=body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*begin, Message(role="user", content=body.input)]
    reader = _Items()
    for i, item in enumerate(body.input):
        reader.add(item, f"input[{i}]")
    messages = begin + reader.end()
    if len(messages) > MAX_MESSAGES:
        raise invalid(f"`input` supports up to {MAX_MESSAGES} messages. Given: {len(messages)}")
    return messages


class _Items:
    """Reads items one after the other; what the model said is gathered to turns."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._called: dict[str, str] = {}
        """Names of all calls so far."""

    def add(self, item: schema.InputItem, where: str) -> None:
        """Read one item."""
        match item.type:
            case None | "message":
                self._message(item, where)
            case "reasoning":
                self._reasoning(item, where)
            case "function_call":
                self._call(item, where)
            case "function_call_output":
                self._result(item, where)
            case "item_reference":
                raise invalid(f"`{where}` is an `item_reference`, but {schema.STATELESS}")
            case _:
                raise invalid(
                    f"`{where}.type` is `{item.type[:40]}`: only `message`, `reasoning`,"
                    " `function_call` and `function_call_output` are supported"
                )

    def end(self) -> list[Message]:
        """All messages."""
        self._end_turn()
        return self._messages

    def _message(self, item: schema.InputItem, where: str) -> None:
        if item.role not in _ROLES:
            raise invalid(f"`{where}.role` must be one of {', '.join(f'`{r}`' for r in _ROLES)}")
        if item.content is None:
            raise _needs(where, "content")
        text = joined(item.content, f"{where}.content")
        if item.role == "assistant":
            self._continue_turn()
            self._texts.append(text)
        else:
            self._end_turn()
            self._messages.append(Message(role=item.role, content=text))

    def _reasoning(self, item: schema.InputItem, where: str) -> None:
        """Reasoning that is encrypted is another server's secret: there is nothing to read."""
        content, key = (item.content, "content") if item.content else (item.summary, "summary")
        self._continue_turn()
        self._thoughts.append(joined(content or "", f"{where}.{key}"))

    def _call(self, item: schema.InputItem, where: str) -> None:
        if item.call_id is None:
            raise _needs(where, "call_id")
        if item.name is None:
            raise _needs(where, "name")
        self._called[item.call_id] = item.name
        function = {"name": item.name, "arguments": item.arguments or ""}
        self._calls.append({"id": item.call_id, "type": "function", "function": function})

    def _result(self, item: schema.InputItem, where: str) -> None:
        if item.output is None:
            raise _needs(where, "output")
        if item.call_id is None or item.call_id not in self._called:
            raise invalid(f"`{where}.call_id` names no `function_call` before it")
        self._end_turn()
        self._messages.append(
            Message(
                role="tool",
                content=joined(item.output, f"{where}.output"),
                tool_call_id=item.call_id,
                name=self._called[item.call_id],
            )
        )

    def _continue_turn(self) -> None:
        """A turn that has said something and called nothing is over when more is said."""
        if self._texts and not self._calls:
            self._end_turn()

    def _end_turn(self) -> None:
        """What the model said so far is a message."""
        if self._texts or self._thoughts or self._calls:
            self._messages.append(
                Message(
                    role="assistant",
                    content=_joined(self._texts),
                    tool_calls=self._calls or None,
                    reasoning_content=_joined(self._thoughts) or None,
                )
            )
        self._texts, self._thoughts, self._calls = [], [], []


def _joined(texts: list[str]) -> str:
    return _BETWEEN_ITEMS.join(text for text in texts if text)


def _needs(where: str, name: str) -> RequestError:
    return invalid(f"`{where}` needs `{name}`")
