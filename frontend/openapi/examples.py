"""Requests to copy, for each operation that takes a body; tests send every one of them.

They stay within the default limits and work with every model that has a chat template.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One request."""

    name: str
    """Its key in the document, unique within the operation."""
    summary: str
    value: dict[str, Any]
    """The JSON body."""


_QUESTION = {"role": "user", "content": "What is the capital of France?"}
_MESSAGES = [{"role": "system", "content": "Answer in one sentence."}, _QUESTION]

_WEATHER = {"role": "user", "content": "What is the weather in Paris?"}
_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_ANNA = "Anna is 31 years old. Write this as JSON."
_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}

_SHORT = Example(
    "short",
    "A few tokens, the likeliest ones",
    {"inputs": "What is the capital of France?", "parameters": {"max_new_tokens": 20}},
)
_SAMPLED = Example(
    "sampled",
    "Sampling with a seed, and a stop string",
    {
        "inputs": "The capital of Italy is",
        "parameters": {
            "max_new_tokens": 20,
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.95,
            "seed": 42,
            "stop": ["."],
        },
    },
)
_DETAILS = Example(
    "details",
    "With every token and its likeliest alternatives",
    {
        "inputs": "The capital of Italy is",
        "parameters": {"max_new_tokens": 5, "details": True, "top_n_tokens": 2},
    },
)

_SCHEMA = Example(
    "schema",
    "JSON that matches a schema",
    {
        "inputs": _ANNA,
        "parameters": {"max_new_tokens": 40, "grammar": {"type": "json", "value": _PERSON}},
    },
)

GENERATE = (
    _SHORT,
    _SAMPLED,
    _DETAILS,
    _SCHEMA,
    Example(
        "best_of",
        "The likelier of two",
        {
            "inputs": "The capital of Italy is",
            "parameters": {"max_new_tokens": 5, "do_sample": True, "best_of": 2, "details": True},
        },
    ),
)
GENERATE_STREAM = (_SHORT, _SAMPLED, _DETAILS)
ROOT = (
    _SHORT,
    Example("stream", "Token by token", {**_SHORT.value, "stream": True}),
)
MESSAGES = (
    Example("question", "A question", {"model": "any", "messages": [_QUESTION], "max_tokens": 40}),
    Example(
        "stream",
        "Event by event",
        {"model": "any", "messages": [_QUESTION], "max_tokens": 40, "stream": True},
    ),
    Example(
        "tool",
        "A call of a tool",
        {
            "model": "any",
            "messages": [_WEATHER],
            "max_tokens": 60,
            "tools": [
                {
                    "name": "get_weather",
                    "description": "Get the weather of a city",
                    "input_schema": _CITY,
                }
            ],
        },
    ),
)
COUNT_TOKENS = (Example("question", "A question", {"model": "any", "messages": [_QUESTION]}),)
TOKENIZE = (Example("text", "The tokens of a text", {"inputs": "My name is Olivier"}),)
CHAT_TOKENIZE = (Example("conversation", "The tokens of a conversation", {"messages": _MESSAGES}),)
CHAT = (
    Example(
        "question",
        "A question",
        {"model": "tgi", "messages": _MESSAGES, "max_tokens": 40, "temperature": 0},
    ),
    Example(
        "stream",
        "Token by token, with the usage at the end",
        {
            "model": "tgi",
            "messages": [_QUESTION],
            "max_tokens": 40,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    Example(
        "logprobs",
        "With log-probabilities",
        {
            "model": "tgi",
            "messages": [_QUESTION],
            "max_tokens": 5,
            "logprobs": True,
            "top_logprobs": 2,
        },
    ),
    Example(
        "tool",
        "A call of a tool",
        {
            "model": "tgi",
            "messages": [_WEATHER],
            "max_tokens": 60,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "Get the weather of a city",
                        "parameters": _CITY,
                    },
                }
            ],
        },
    ),
    Example(
        "schema",
        "JSON that matches a schema",
        {
            "model": "tgi",
            "messages": [{"role": "user", "content": _ANNA}],
            "max_tokens": 60,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": _PERSON},
            },
        },
    ),
)
RESPONSES = (
    Example(
        "question",
        "A question",
        {
            "model": "tgi",
            "instructions": "Answer in one sentence.",
            "input": "What is the capital of France?",
            "max_output_tokens": 40,
            "temperature": 0,
        },
    ),
    Example(
        "stream",
        "Event by event, with log-probabilities",
        {
            "model": "tgi",
            "input": [_QUESTION],
            "max_output_tokens": 40,
            "stream": True,
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
        },
    ),
    Example(
        "tool",
        "A call of a tool",
        {
            "model": "tgi",
            "input": [_WEATHER],
            "max_output_tokens": 60,
            "tools": [
                {
                    "type": "function",
                    "name": "get_weather",
                    "description": "Get the weather of a city",
                    "parameters": _CITY,
                }
            ],
        },
    ),
    Example(
        "schema",
        "JSON that matches a schema",
        {
            "model": "tgi",
            "input": _ANNA,
            "max_output_tokens": 60,
            "text": {"format": {"type": "json_schema", "name": "person", "schema": _PERSON}},
        },
    ),
)
COMPLETIONS = (
    Example(
        "prompt",
        "One prompt",
        {"model": "tgi", "prompt": "The capital of Italy is", "max_tokens": 10, "temperature": 0},
    ),
    Example(
        "stream",
        "Two prompts, token by token",
        {
            "model": "tgi",
            "prompt": ["The capital of Italy is", "The capital of France is"],
            "max_tokens": 10,
            "stream": True,
        },
    ),
)
INVOCATIONS = (
    _SHORT,
    Example("chat", "A conversation", {"messages": _MESSAGES, "max_tokens": 40}),
    Example("completion", "A completion", {"prompt": "The capital of Italy is", "max_tokens": 10}),
)
VERTEX = (
    Example(
        "instances",
        "A prompt and a conversation",
        {"instances": [_SHORT.value, {"messages": _MESSAGES, "max_tokens": 20}]},
    ),
)
INFER = (
    Example(
        "text",
        "One text",
        {
            "id": "42",
            "inputs": [
                {
                    "name": "prompt",
                    "shape": [1],
                    "datatype": "BYTES",
                    "data": ["The capital of Italy is"],
                }
            ],
            "outputs": [{"name": "text"}],
            "parameters": {"max_new_tokens": 10},
        },
    ),
)
