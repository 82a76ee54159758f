"""What browsers may do with this server from other pages (the Fetch standard's CORS protocol).

Runs in every front-end process. Answers preflight requests itself, before keys are asked for.
"""

import re

import falcon

METHODS = "GET,POST"
REQUEST_HEADERS = (
    "accept",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "api-key",
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-request-id",
    "x-request-timeout",
    "x-request-timeout-ms",
)
"""What clients in browsers send."""
ANSWER_HEADERS = (
    "request-id",
    "retry-after",
    "x-compute-characters",
    "x-compute-time",
    "x-compute-type",
    "x-generated-tokens",
    "x-inference-time",
    "x-prompt-tokens",
    "x-queue-time",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-request-id",
    "x-time-per-token",
    "x-total-time",
    "x-validation-time",
)
"""What pages may read of an answer, besides what they always may."""
MAX_ASKED = 64
"""Names in one preflight request that are looked at."""

_SDK_HEADER = re.compile(r"(?:openai|anthropic|x-stainless)-[a-z0-9-]{1,64}")
"""Their number grows with every version of the clients, so they are allowed by prefix."""


class Cors:
    """GET and POST from everywhere, or from the listed origins."""

    def __init__(self, origins: list[str]) -> None:
        self._origins = frozenset(origins)
        self._exposed = ",".join(ANSWER_HEADERS)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer preflight requests."""
        wanted = req.get_header("Access-Control-Request-Method")
        if req.method != "OPTIONS" or wanted is None or req.get_header("Origin") is None:
            return
        asked = req.get_header("Access-Control-Request-Headers") or ""
        resp.set_header("Access-Control-Allow-Methods", METHODS)
        resp.set_header("Access-Control-Allow-Headers", ",".join(_allowed(asked)))
        resp.append_header(
            "Vary", "origin, access-control-request-method, access-control-request-headers"
        )
        resp.status = falcon.HTTP_200
        resp.complete = True

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Say who may read the answer, and what of its headers."""
        origin = req.get_header("Origin")
        if not self._origins:
            resp.set_header("Access-Control-Allow-Origin", "*")
        else:
            resp.append_header("Vary", "origin")
            if origin not in self._origins:
                return
            resp.set_header("Access-Control-Allow-Origin", origin)
        if origin is not None and req.method != "OPTIONS":
            resp.set_header("Access-Control-Expose-Headers", self._exposed)


def _allowed(asked: str) -> list[str]:
    """The known names, and those asked for that belong to the clients' libraries."""
    names = [name.strip().lower() for name in asked.split(",", MAX_ASKED)[:MAX_ASKED]]
    more = {name for name in names if _SDK_HEADER.fullmatch(name)}
    return sorted({*REQUEST_HEADERS, *more})
