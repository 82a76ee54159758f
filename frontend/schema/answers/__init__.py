"""The typed answers and events of each surface: what the OpenAPI document says clients will read.

Answers are written as plain dictionaries where they arise; tests convert every one of them into
these types, strictly, so that the document and the server cannot drift apart. A key that may be
absent is ``UNSET`` by default; a key that is always there has no default, though it may be null.
"""

import msgspec


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every object in an answer: a key that is not listed is a mistake of ours."""
