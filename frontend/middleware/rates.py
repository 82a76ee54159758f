"""Tells clients how busy the server is: OpenAI's rate-limit headers on generating answers.

Runs in every front-end process. The limit is that of sequences that may be alive at once. What
remains of it comes from the scheduler's last Status, so it may be a second old, and others may
take it: only the scheduler knows at the moment when it decides.
"""

import falcon

from frontend import exchange
from frontend.links import Links

RENEWED_S = 1
"""How soon it pays to look again, where nothing was refused."""


class Rates:
    """Adds the headers, unless nothing is known."""

    def __init__(self, link: Links, limit: int) -> None:
        self._link = link
        self._limit = limit

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Of a refused request (429) nothing remains, and it resets when Retry-After says."""
        refused = resp.status_code == 429
        if not refused and not exchange.of(req).generates:
            return
        live = self._link.live_sequences()
        if live is None:
            return
        remaining = 0 if refused else max(self._limit - live, 0)
        reset_s = resp.get_header("Retry-After") or str(RENEWED_S)
        resp.set_header("x-ratelimit-limit-requests", str(self._limit))
        resp.set_header("x-ratelimit-remaining-requests", str(remaining))
        resp.set_header("x-ratelimit-reset-requests", f"{reset_s}s")
