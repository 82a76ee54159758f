"""What TGI does not look at in a request of its OpenAI routes, for ``--messages-api-dialect tgi``.

Strictness and its answers are elsewhere: ``orders.py`` has TGI's penalties, ``tgi_answers.py`` its
words.
"""

from typing import TypeVar

import msgspec

from common.errors import ErrorKind
from frontend.schema.openai import CompletionBody, OpenAIBody

Body = TypeVar("Body", bound=OpenAIBody)

STREAMED = frozenset({ErrorKind.VALIDATION, ErrorKind.OVERLOADED})
"""Kinds of refusals that a stream tells by an event, with status 200."""


def as_tgi_reads(body: Body) -> Body:
    """The body without the fields that TGI ignores."""
    if isinstance(body, CompletionBody):
        body = msgspec.structs.replace(
            body, best_of=None, echo=None, logprobs=None, presence_penalty=None
        )
    bias = body.logit_bias if isinstance(body.logit_bias, dict) else None
    return msgspec.structs.replace(body, n=None, logit_bias=bias)
