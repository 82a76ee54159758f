"""The pieces of answers that the two OpenAI routes share: names, usage, log-probabilities."""

from dataclasses import dataclass
from typing import Any

from frontend.identity import Identity
from frontend.runs import Run, Token
from frontend.schema.openai import OpenAIBody
from frontend.text.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"
BASE_MODEL = "tgi"
"""A model name that means the model which is served."""

GOES_ON = {"finish_reason": None}
"""What chunks say of an end as long as there is none."""
_FINISH = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


@dataclass(frozen=True)
class Stamp:
    """What identifies an answer; the same in all chunks of a stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    def document(self, kind: str) -> dict[str, Any]:
        """The common beginning of an answer or chunk."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def stamp(prefix: str, model: str, version: str, identity: Identity) -> Stamp:
    """What an answer is called; ``prefix`` is OpenAI's for its kind."""
    name = identity.name(prefix, separator="-")
    return Stamp(name, int(identity.born), model, f"{version}-native")


def ending(run: Run, *, calls: bool = False) -> dict[str, Any]:
    """Why a run has ended: OpenAI's reason, and vLLM's, the stop string or token of the client."""
    stopped = run.finish in ("eos_token", "stop_sequence")
    return {
        "finish_reason": "tool_calls" if calls and stopped else _FINISH[run.finish],
        "stop_reason": run.matched_stop or run.matched_stop_token,
    }


def usage(prompt_tokens: int, runs: list[Run], cached_tokens: int) -> dict[str, Any]:
    """The ``usage`` object: end tokens count, and prompt tokens that were read from cache too."""
    completion_tokens = sum(run.generated_tokens for run in runs)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def wants_usage(body: OpenAIBody) -> bool:
    """Whether a stream ends with a usage chunk."""
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def logprobs(tokens: list[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """The ``logprobs`` object of chat."""
    return {
        "content": [
            {
                **_logprob(token.text.encode(), token.logprob),
                "top_logprobs": [
                    _logprob(tokenizer.piece(candidate), logprob)
                    for candidate, logprob in token.tops
                ],
            }
            for token in tokens
        ]
    }


def _logprob(text: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text.decode(errors="replace"), "logprob": logprob, "bytes": list(text)}
