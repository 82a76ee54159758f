"""Right requests that use every part of a route, for tests that change them; and hostile ones."""

from typing import Any

from tests.frontend.mutations import DEEPEST, MARK

_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_WEATHER = {"name": "get_weather", "description": f"Weather {MARK}", "parameters": _CITY}
_TALK = [
    {"role": "system", "content": [{"type": "text", "text": f"Be {MARK}"}]},
    {"role": "user", "content": "What is the weather?", "name": "me"},
    {
        "role": "assistant",
        "reasoning_content": f"The weather {MARK}",
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": f"Rain {MARK}"},
]
_CHAT = {
    "messages": _TALK,
    "tools": [{"type": "function", "function": _WEATHER}],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "max_tokens": 30,
    "stop": ["x", MARK],
    "logit_bias": {"5": 1, "6": -100},
    "seed": 1,
}
_PLAIN_CHAT = {
    "messages": [*_TALK[:2], {"role": "assistant", "content": f"Well {MARK}"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _CITY}},
    "chat_template_kwargs": {"a": [{"b": MARK}]},
    "max_completion_tokens": 40,
    "top_logprobs": 2,
    "logprobs": True,
    "n": 2,
}
_COMPLETION = {
    "prompt": [[5, 6], f"hello {MARK}"],
    "max_tokens": 20,
    "logprobs": 2,
    "n": 2,
    "best_of": 2,
    "response_format": {"type": "regex", "value": "a+"},
}
_GENERATE = {
    "inputs": f"hello {MARK}",
    "parameters": {
        "max_new_tokens": 30,
        "truncate": 5,
        "stop": ["x"],
        "grammar": {"type": "json", "value": _CITY},
        "top_n_tokens": 2,
        "details": True,
        "decoder_input_details": True,
        "return_full_text": True,
        "temperature": 0.5,
        "top_k": 5,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
    },
}
_MESSAGES = {
    "max_tokens": 40,
    "system": [{"type": "text", "text": f"Be {MARK}"}],
    "messages": [
        {"role": "user", "content": "What is the weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": f"Hm {MARK}", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"city": MARK}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "text", "text": f"Rain {MARK}"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ],
    "tools": [{"name": "get_weather", "input_schema": _CITY}],
    "tool_choice": {"type": "tool", "name": "get_weather"},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_1", "keep": "all"}]},
    "output_config": {"effort": "max"},
    "stop_sequences": ["x"],
}
_RESPONSES = {
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": MARK}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": MARK}]},
        {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": f"Rain {MARK}"},
    ],
    "instructions": f"Be {MARK}",
    "tools": [{"type": "function", **_WEATHER}],
    "tool_choice": {"type": "function", "name": "get_weather"},
    "max_output_tokens": 40,
}
_INFER = {
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [[104, 105]]}],
    "outputs": [{"name": "b"}],
    "parameters": {"max_new_tokens": 20, "best_of": 2, "do_sample": True},
}

FULL: dict[str, list[dict[str, Any]]] = {
    "/": [_GENERATE],
    "/generate": [_GENERATE],
    "/generate_stream": [_GENERATE],
    "/chat_tokenize": [_CHAT, _PLAIN_CHAT],
    "/v1/chat/completions": [_CHAT, _PLAIN_CHAT],
    "/v1/completions": [_COMPLETION],
    "/v1/messages": [_MESSAGES],
    "/v1/messages/count_tokens": [_MESSAGES],
    "/v1/responses": [_RESPONSES],
    "/invocations": [_GENERATE, _CHAT, _PLAIN_CHAT, _COMPLETION],
    "/vertex": [{"instances": [_GENERATE, _CHAT]}],
    "/v2/models/{model}/infer": [_INFER],
}
"""By the path of the operation; those that are not here have examples only."""


def _called(call_id: Any) -> list[dict[str, Any]]:
    """A conversation with a call of that id."""
    call = {"id": call_id, "function": {"name": "a"}}
    return [_TALK[1], {"role": "assistant", "tool_calls": [call]}]


_SHORT_MESSAGES = {"max_tokens": 3, "messages": [_TALK[1]]}

BROKEN_ONCE: dict[str, tuple[str, dict[str, Any]]] = {
    "a call id of many digits": (
        "/v1/chat/completions",
        {"stream": True, "messages": _called("1" * 6000)},
    ),
    "a deep call id": ("/v1/chat/completions", {"messages": _called(DEEPEST)}),
    "a deep schema of a tool": (
        "/v1/chat/completions",
        {
            "messages": [_TALK[1]],
            "tools": [{"function": {"name": "a", "parameters": {"a": DEEPEST}}}],
        },
    ),
    "a deep edit": (
        "/v1/messages",
        {**_SHORT_MESSAGES, "context_management": {"edits": [{"type": DEEPEST}]}},
    ),
    "a long word where few are right": (
        "/v1/messages",
        {**_SHORT_MESSAGES, "messages": [{"role": "a" * 5000, "content": "a"}]},
    ),
}
"""A path and a request that was answered badly, to be written as a tree."""
