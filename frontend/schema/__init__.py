"""The typed requests of each surface, as clients send them, and the conversion into them.

Types only: which values make sense is decided in ``limits.py``. Unknown keys are ignored. Strings
are never taken for numbers, floats never for integers; integers may stand for floats.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from common.errors import ErrorKind, RequestError

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]
"""Larger numbers never get here: orjson reads them as floats."""
Seed = Annotated[int, msgspec.Meta(ge=-(2**63))]
"""OpenAI's seeds may be negative; they are taken modulo 2**64."""
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]

MOST_SHOWN = 200
"""Characters of a long message that are shown on either side: it may repeat a client's value."""

T = TypeVar("T")


def typed(document: Any, kind: type[T]) -> T:
    """``document`` as a ``kind``. Raises RequestError (VALIDATION) with the JSON path."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RequestError(ErrorKind.VALIDATION, _shortened(_explained(str(error)))) from None


def _explained(message: str) -> str:
    """Who sent an integer so large that it was read as a float would not know what is meant."""
    return message.replace("got `float`", "got `float` (integers beyond 64 bits are such)", 1)


def _shortened(message: str) -> str:
    """Without the middle of a very long one; the path stands at the end."""
    if len(message) <= 2 * MOST_SHOWN:
        return message
    return f"{message[:MOST_SHOWN]}…{message[-MOST_SHOWN:]}"
