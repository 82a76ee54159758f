"""The headers that the document tells of: those that clients may send, and those of answers."""

from typing import Any

from frontend.openapi.operations.operation import Operation

_STREAMED = {
    "X-Compute-Type": ("string", "What computes."),
    "X-Compute-Characters": ("integer", "Characters of the prompt, or of all prompts."),
}
_MEASURED = {
    "X-Total-Time": ("integer", "Milliseconds from the request to its end."),
    "X-Validation-Time": ("integer", "Milliseconds until the request was queued."),
    "X-Queue-Time": ("integer", "Milliseconds until the model began."),
    "X-Inference-Time": ("integer", "Milliseconds that the model took."),
    "X-Time-Per-Token": ("integer", "Milliseconds for each generated token."),
    "X-Prompt-Tokens": ("integer", "Tokens of the prompt, or of all prompts."),
    "X-Generated-Tokens": ("integer", "Tokens that were generated."),
}
_ALWAYS = {"X-Request-Id": ("string", "Names the request in the server's log.")}
_RATES = {
    "X-RateLimit-Limit-Requests": ("integer", "Sequences that may be alive at once."),
    "X-RateLimit-Remaining-Requests": ("integer", "What was free of it, up to a second ago."),
    "X-RateLimit-Reset-Requests": ("string", "When it pays to look again, such as `1s`."),
}
_WAIT = {"Retry-After": ("integer", "Seconds to wait before trying again.")}

COMPONENTS: dict[str, Any] = {
    name: {"description": text, "schema": {"type": kind}}
    for name, (kind, text) in (_ALWAYS | _WAIT | _RATES | _STREAMED | _MEASURED).items()
}

PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds after which no answer is wanted any more.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "The same in milliseconds; the shorter one counts.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000_000},
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "A name for this request, to find it in the server's log; another one is "
        "made if it holds more than letters, digits and `._:/+=-`.",
        "schema": {"type": "string", "maxLength": 128},
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "With `--sse-event-ids`: the `id` of the last event of a stream whose "
        "connection was lost. The answer is the rest of it; the body may be repeated or left out.",
        "schema": {"type": "string"},
    },
]


def of_answer(operation: Operation) -> dict[str, Any]:
    """The headers of an answer with status 200."""
    names = [*_ALWAYS]
    if operation.generates:
        names += [*_RATES, *_STREAMED, *(_MEASURED if operation.answers else ())]
    return _references(names)


def of_error(status: int) -> dict[str, Any]:
    """The headers of an error."""
    return _references([*_ALWAYS, *((_WAIT | _RATES) if status == 429 else ())])


def _references(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
