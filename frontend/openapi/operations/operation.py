"""What the document knows of one operation: what it takes, what it answers, how it fails."""

from dataclasses import dataclass
from typing import Any, Literal

from common.routes import ALWAYS_OPEN
from frontend.openapi.examples import Example
from frontend.schema.answers.errors import (
    AnthropicErrorAnswer,
    ErrorAnswer,
    KServeErrorAnswer,
    OpenAIErrorAnswer,
)
from frontend.surfaces import Surface, surface_of

BODY = (400, 408, 413, 415, 422)
"""What can be wrong with a body."""
GENERATION = (*BODY, 410, 424, 429, 500, 503)
"""What can go wrong before or while text is generated."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one route. An answer of status 200 has one of the listed types."""

    method: Literal["get", "post"]
    path: str
    """As OpenAPI writes it: ``/v1/models/{model}``."""
    tag: str
    summary: str
    description: str = ""
    bodies: tuple[Any, ...] = ()
    """Types of the request."""
    examples: tuple[Example, ...] = ()
    """At least one if there is a body."""
    answers: tuple[Any, ...] = ()
    """Types of the JSON answer."""
    events: tuple[Any, ...] = ()
    """Types of an event, if the answer can be a stream, besides that of errors."""
    text: str = ""
    """Media type of an answer that is no JSON."""
    errors: tuple[int, ...] = ()
    """Statuses of such answers, besides 401."""
    own_failures: tuple[type, ...] = ()
    """Types of answers with such a status that tell more than the API's errors do."""
    generates: bool = False
    """Whether it generates text: such answers carry measurements in their headers."""

    @property
    def failures(self) -> tuple[type, ...]:
        """The types of answers that are errors: in TGI's dialect there may be another."""
        found = [ERRORS[surface_of(self.path, as_tgi=as_tgi)] for as_tgi in (False, True)]
        return tuple(dict.fromkeys([*self.own_failures, *found]))

    @property
    def is_open(self) -> bool:
        """Whether it never needs a key."""
        return self.method == "get" and self.path in ALWAYS_OPEN


ERRORS = {
    Surface.NATIVE: ErrorAnswer,
    Surface.OPENAI: OpenAIErrorAnswer,
    Surface.ANTHROPIC: AnthropicErrorAnswer,
    Surface.KSERVE: KServeErrorAnswer,
}
"""How each API tells errors."""
