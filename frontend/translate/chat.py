"""``/v1/chat/completions``: messages through the template, one choice."""

from dataclasses import dataclass
from typing import Any

import orjson

from common.errors import ErrorKind, RequestError
from frontend import limits
from frontend.answers import event, request_error_document
from frontend.limits import invalid
from frontend.runs import Order, Run, Token
from frontend.schema.openai import ChatBody, Message
from frontend.services import Services
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.prompts import encode


@dataclass(frozen=True)
class ChatRequest:
    """A validated chat request."""

    order: Order
    stamp: openai.Stamp
    input_length: int
    """Prompt tokens."""
    characters: int
    """Length of the templated prompt."""
    logprobs: bool
    usage: bool
    """Whether the stream ends with a usage chunk."""


def prepare(
    body: ChatBody, services: Services, *, streaming: bool, timeout_s: float = 0.0
) -> ChatRequest:
    """Check everything, render the template, and plan. Raises RequestError."""
    settings = services.settings
    _refuse(body)
    openai.check(body, settings)
    limits.check_top_n(body.top_logprobs, settings, "top_logprobs")
    limits.check_max_new_tokens("max_completion_tokens", body.max_completion_tokens)
    prompt = _render(body, services)
    ids = encode(prompt, services.tokenizer, services.offload, add_special_tokens=False)
    max_tokens = body.max_completion_tokens or body.max_tokens
    top_n_tokens = (body.top_logprobs or 0) if body.logprobs else 0
    plan = openai.plan(body, ids, max_tokens, services, top_n_tokens=top_n_tokens)
    order = openai.order(
        body,
        [plan],
        settings,
        streaming=streaming,
        timeout_s=timeout_s,
        keep_tokens=bool(body.logprobs) and not streaming,
    )
    model = body.model if body.model not in (None, openai.BASE_MODEL) else settings.model_id
    return ChatRequest(
        order=order,
        stamp=openai.stamp("chatcmpl", model or "", services.version, services.wall_clock()),
        input_length=len(ids),
        characters=len(prompt),
        logprobs=bool(body.logprobs),
        usage=openai.wants_usage(body),
    )


def answer(request: ChatRequest, runs: list[Run], tokenizer: Tokenizer) -> dict[str, Any]:
    """The body of a chat completion."""
    (run,) = runs
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": run.text},
        "logprobs": openai.logprobs(run.tokens, tokenizer) if request.logprobs else None,
        "finish_reason": openai.finish_reason(run.finish),
    }
    return {
        **request.stamp.document("chat.completion"),
        "choices": [choice],
        "usage": openai.usage(request.input_length, run.generated_tokens),
    }


class ChatDialect:
    """The chunks of a chat stream: one per token, then usage if asked for, then ``[DONE]``.

    ``role`` stands in every chunk, because the ``text-generation`` client demands it.
    """

    def __init__(self, request: ChatRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._head = request.stamp.document("chat.completion.chunk")
        self._completion_tokens = 0
        self._failed = False

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """One chunk per token; the last one of the run carries the reason."""
        self._completion_tokens = run.generated_tokens
        return b"".join([self._chunk(token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event."""
        self._failed = True
        return event(request_error_document(error, openai=True))

    def end(self) -> bytes:
        """The usage chunk, if it was asked for and nothing failed, and the terminator."""
        if not self._request.usage or self._failed:
            return openai.DONE
        counts = openai.usage(self._request.input_length, self._completion_tokens)
        return event({**self._head, "choices": [], "usage": counts}) + openai.DONE

    def _chunk(self, token: Token) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": token.shown},
            "logprobs": (
                openai.logprobs([token], self._tokenizer)
                if self._request.logprobs and token.counted
                else None
            ),
            "finish_reason": openai.finish_reason(token.finish),
        }
        return event({**self._head, "choices": [choice], "usage": None})


def _refuse(body: ChatBody) -> None:
    """Refuse by name what would change the answer."""
    if body.tools and body.tool_choice != "none":
        raise invalid("`tools` is not supported yet")
    form = body.response_format
    if form is not None and form.get("type") != "text":
        raise invalid("`response_format` other than text is not supported yet")
    if not body.messages:
        raise invalid("`messages` cannot be empty")


def _render(body: ChatBody, services: Services) -> str:
    template = services.template
    if template is None:
        raise RequestError(ErrorKind.TEMPLATE, "the model has no chat template")
    messages = [_flatten(message, i) for i, message in enumerate(body.messages)]
    last = messages[-1]
    goes_on = last["role"] == "assistant" and bool(last["content"])
    size = sum(len(message["content"]) for message in messages)
    return services.offload.run(
        size,
        lambda: template.render(
            messages,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            template_kwargs=body.chat_template_kwargs,
        ),
    )


def _flatten(message: Message, index: int) -> dict[str, Any]:
    """A message as templates expect it; None stands for what is absent."""
    content = message.content
    if content is None and not message.tool_calls:
        raise invalid(f"`messages[{index}]` needs `content` or `tool_calls`")
    if isinstance(content, list):
        for k, part in enumerate(content):
            if part.type != "text" or part.text is None:
                raise invalid(
                    f"`messages[{index}].content[{k}]`: only text is supported by this model"
                )
        content = "".join(part.text or "" for part in content)
    return {
        "role": message.role,
        "content": content or "",
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "tool_calls": [_decoded(call) for call in message.tool_calls or []] or None,
        "reasoning_content": message.reasoning_content,
    }


def _decoded(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object, if they are the JSON text of one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}
