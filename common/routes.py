"""Which paths are readable without a key, and which a setting may open.

Shared by the launcher, which refuses to open others, and by the front ends. All other paths are
closed when keys are set, those that do not exist included.
"""

from typing import Any

ALWAYS_OPEN = frozenset(
    {
        "/",
        "/health",
        "/health/live",
        "/health/progress",
        "/health/ready",
        "/ping",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
"""Health, for whoever watches the server; only GET and HEAD."""
PLAYGROUND = "/playground"
OPENABLE = (
    "/info",
    "/metrics",
    "/v1/models",
    "/docs",
    "/docs/",
    PLAYGROUND,
    "/openapi.json",
    "/api-doc/openapi.json",
)
"""What tells about the server and costs it nothing; only GET and HEAD."""


def openable(paths: list[Any]) -> str:
    """The check of ``--open-routes``: "must be …" if a path cannot be opened."""
    if all(path in OPENABLE for path in paths):
        return ""
    return f"must be paths among {', '.join(OPENABLE)}"
