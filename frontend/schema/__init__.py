"""The typed requests of each surface, as clients send them, and the conversion into them.

Types only: which values make sense is decided in ``limits.py``. Unknown keys are ignored. Strings
are never taken for numbers, floats never for integers; integers may stand for floats.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from common.errors import ErrorKind, RequestError

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U63 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]
"""msgspec knows no such bound: whoever has a field of these checks it with ``check_u64``."""
Seed = Annotated[int, msgspec.Meta(ge=-(2**63))]
"""OpenAI's seeds may be negative; they are taken modulo 2**64."""
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is to reason."""

MOST_SHOWN = 200
"""Characters of a long message that are shown on either side: it may repeat a client's value."""

T = TypeVar("T")


def typed(document: Any, kind: type[T]) -> T:
    """``document`` as a ``kind``. Raises RequestError (VALIDATION) with the JSON path."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RequestError(ErrorKind.VALIDATION, _shortened(str(error))) from None


def check_u64(name: str, value: int | None) -> None:
    """For ``__post_init__``. Raises ValueError, which msgspec tells the client."""
    if value is not None and value >= 1 << 64:
        raise ValueError(f"Expected `int` < 2**64 in `{name}`")


def _shortened(message: str) -> str:
    """Without the middle of a very long one; the path stands at the end."""
    if len(message) <= 2 * MOST_SHOWN:
        return message
    return f"{message[:MOST_SHOWN]}…{message[-MOST_SHOWN:]}"
