"""Every kind of request that has to survive, and what of its answer has to stay the same.

Every prompt holds the word that slows its steps down, so that a text takes some seconds; other
words make it a victim of the injector. See ``scene.py``.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

SLOW, EXIT, HANG, MEMORY, SLEEP = "zebra", "fatally", "forever", "hungrily", "sleepily"
"""Words of prompts, and what they do to the steps that compute them."""
TOKENS = 200
"""More than there may be room for in a lease: texts outlast what workers do without a scheduler."""
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 12, "maxLength": 40},
        "people": {"type": "integer", "minimum": 1},
        "sights": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 3,
                   "maxItems": 4},
    },
    "required": ["city", "people", "sights"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = {
    "type": "function",
    "function": {"name": "describe", "description": "Describe a city", "parameters": SCHEMA},
}


@dataclass(frozen=True)
class Kind:
    """A request, and how to read its answer."""

    name: str
    path: str
    body: dict[str, Any]
    read: Callable[[Any], Any]
    """From the document, or the list of events, to what must be the same in every run."""
    count: Callable[[Any], Counter[Any]]
    """Each token that the client received, or how many."""
    streams: bool = False

    @property
    def sequences(self) -> int:
        """What it makes of the scheduler's."""
        given = self.body.get("parameters", {})
        prompts = self.body.get("prompt", [1])
        return int(max(self.body.get("n", 1), given.get("best_of", 1), len(prompts)))

    def marked(self, word: str) -> "Kind":
        """The same with one more word in the prompt."""
        return replace(self, name=f"{self.name}, {word}", body=_with(self.body, word))

    def lasting(self, tokens: int) -> "Kind":
        """The same with another length; not for native requests."""
        name = f"{self.name}, {tokens} tokens"
        return replace(self, name=name, body={**self.body, "max_tokens": tokens})


def _with(value: Any, word: str) -> Any:
    if isinstance(value, dict):
        return {key: _with(item, word) for key, item in value.items()}
    if isinstance(value, list):
        return [_with(item, word) for item in value]
    return value.replace(SLOW, f"{SLOW} {word}") if isinstance(value, str) else value


# --- how answers are read -------------------------------------------------------------------------


def native(document: Any) -> Any:
    details = document["details"]
    others = [
        (other["generated_text"], [token["id"] for token in other["tokens"]])
        for other in details.get("best_of_sequences") or []
    ]
    ids = [token["id"] for token in details["tokens"]]
    return document["generated_text"], details["finish_reason"], ids, others


def native_stream(events: Any) -> Any:
    last = events[-1]
    reason = last["details"]["finish_reason"] if last.get("details") else ""
    return last["generated_text"], reason, [(e["index"], e["token"]["id"]) for e in events]


def native_count(document: Any) -> Counter[Any]:
    return Counter(range(document["details"]["generated_tokens"]))


def native_stream_count(events: Any) -> Counter[Any]:
    return Counter(event["index"] for event in events if "token" in event)


def _calls(calls: Any) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls or []]


def chat(document: Any) -> Any:
    return [
        (
            choice["message"].get("content"),
            _calls(choice["message"].get("tool_calls")),
            choice["finish_reason"],
            _tokens_of(choice),
        )
        for choice in document["choices"]
    ]


def _tokens_of(choice: Any) -> list[str]:
    logprobs = choice.get("logprobs")
    return [entry["token"] for entry in logprobs["content"]] if logprobs else []


def chat_stream(events: Any) -> Any:
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in [] if event == "[DONE]" else event["choices"]:
            empty: dict[str, Any] = {"text": "", "calls": "", "finish": [], "tokens": []}
            whole = found.setdefault(choice["index"], empty)
            delta = choice["delta"]
            whole["text"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                function = call["function"]
                whole["calls"] += (function.get("name") or "") + (function.get("arguments") or "")
            whole["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            whole["tokens"] += _tokens_of(choice)
    return found, events[-1]


def completion_stream(events: Any) -> Any:
    found: dict[int, list[Any]] = {}
    for event in events:
        for choice in [] if event == "[DONE]" else event["choices"]:
            whole = found.setdefault(choice["index"], ["", []])
            whole[0] += choice["text"]
            whole[1] += [choice["finish_reason"]] if choice["finish_reason"] else []
    return found, events[-1]


def usage_count(answer: Any) -> Counter[Any]:
    documents = answer if isinstance(answer, list) else [answer]
    used = [d["usage"] for d in documents if isinstance(d, dict) and d.get("usage")]
    return Counter(range(used[-1]["completion_tokens"] if used else 0))


def messages_stream(events: Any) -> Any:
    text = "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta")
    reasons = [e["delta"]["stop_reason"] for e in events if e["type"] == "message_delta"]
    return text, reasons, events[-1]["type"]


def messages_count(events: Any) -> Counter[Any]:
    used = [e["usage"] for e in events if e["type"] == "message_delta"]
    return Counter(range(used[-1]["output_tokens"] if used else 0))


# --- the requests ---------------------------------------------------------------------------------


def generate(name: str, prompt: str, **parameters: Any) -> Kind:
    """A native request that is answered in one piece."""
    given = {"max_new_tokens": TOKENS, "details": True, **parameters}
    body = {"inputs": f"{prompt} about a {SLOW}.", "parameters": given}
    return Kind(name, "/generate", body, native, native_count)


def generate_stream(name: str, prompt: str, **parameters: Any) -> Kind:
    given = {"max_new_tokens": TOKENS, "details": True, **parameters}
    body = {"inputs": f"{prompt} about a {SLOW}.", "parameters": given}
    return Kind(
        name, "/generate_stream", body, native_stream, native_stream_count, streams=True
    )  # fmt: skip


def _chat_body(prompt: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": f"{prompt} about a {SLOW}."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        **fields,
    }


def chatting(name: str, prompt: str, **fields: Any) -> Kind:
    body = _chat_body(prompt, fields)
    return Kind(name, "/v1/chat/completions", body, chat, usage_count)


def chatting_stream(name: str, prompt: str, **fields: Any) -> Kind:
    more = {"stream": True, "stream_options": {"include_usage": True}, **fields}
    body = _chat_body(prompt, more)
    return Kind(name, "/v1/chat/completions", body, chat_stream, usage_count, streams=True)


def completing_stream(name: str, prompts: list[str], **fields: Any) -> Kind:
    body = {
        "prompt": [f"{prompt} about a {SLOW}." for prompt in prompts],
        "max_tokens": TOKENS, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, **fields,
    }  # fmt: skip
    return Kind(name, "/v1/completions", body, completion_stream, usage_count, streams=True)


def messaging_stream(name: str, prompt: str, **fields: Any) -> Kind:
    body = {"model": "m", "stream": True, **_chat_body(prompt, fields)}
    return Kind(name, "/v1/messages", body, messages_stream, messages_count, streams=True)


SAMPLED = {"do_sample": True, "temperature": 0.9, "top_p": 0.95}
WARM = {"temperature": 0.9, "ignore_eos": True}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}

KINDS = [
    generate_stream("greedy, stream", "Tell me a story"),
    generate("greedy", "Tell me a long story"),
    generate_stream("sampled, stream", "Tell me a story", seed=11, **SAMPLED),
    generate("sampled", "Write a poem", seed=12, **SAMPLED),
    generate_stream("watermark, stream", "Tell me a story", seed=13, watermark=True, **SAMPLED),
    generate("best of 2", "Tell me a story", best_of=2, do_sample=True, top_k=1),
    generate_stream("top tokens, stream", "Write a story", top_n_tokens=3),
    generate_stream("repetition penalty, stream", "Tell me a story", repetition_penalty=1.3),
    generate("grammar", "Describe a city", grammar={"type": "json", "value": SCHEMA}),
    chatting_stream("chat, stream", "Tell me a story", ignore_eos=True),
    chatting_stream("2 choices, stream", "Tell me a story", n=2, seed=14, **WARM),
    chatting("2 choices", "Tell me a tale", n=2, seed=15, **WARM),
    chatting_stream(
        "penalties, stream", "Tell me a story", frequency_penalty=0.8, presence_penalty=0.4,
        ignore_eos=True,
    ),
    chatting_stream(
        "log-probabilities, stream", "Tell me a story", logprobs=True, top_logprobs=2,
        ignore_eos=True,
    ),
    chatting_stream("schema, stream", "Describe a city", response_format=FORMAT),
    chatting("tool", "Describe a city", tools=[TOOL], tool_choice="required"),
    chatting_stream("tool, stream", "Describe a city", tools=[TOOL], tool_choice="required"),
    completing_stream("2 prompts, stream", ["Tell me a tale", "Write a song"], ignore_eos=True),
    messaging_stream("messages, stream", "Tell me a story"),
]  # fmt: skip
"""One of each."""
FEW = [kind for kind in KINDS if kind.name in {
    "greedy, stream", "sampled, stream", "watermark, stream", "grammar", "best of 2",
    "2 choices, stream", "penalties, stream", "tool, stream", "log-probabilities, stream",
}]  # fmt: skip
"""For the short form."""
