"""What tells about the server: health, limits, metrics, and this document."""

from typing import Any

from frontend.openapi.operations.operation import Operation
from frontend.schema.answers.info import Info

_HEALTH = "Answers at once from the heartbeat of the server's processes; never runs the model."

SERVER = (
    *(
        Operation(
            method="get",
            path=path,
            tag="Server",
            summary="Can this server generate text?",
            description=_HEALTH,
            errors=(503,),
        )
        for path in ("/health", "/ping", "/")
    ),
    Operation(
        method="get",
        path="/info",
        tag="Server",
        summary="The model and the limits in force",
        answers=(Info,),
    ),
    Operation(
        method="get",
        path="/metrics",
        tag="Server",
        summary="Metrics for Prometheus",
        text="text/plain",
        errors=(503,),
    ),
    *(
        Operation(
            method="get",
            path=path,
            tag="Documentation",
            summary="This document",
            answers=(dict[str, Any],),
        )
        for path in ("/openapi.json", "/api-doc/openapi.json")
    ),
    *(
        Operation(
            method="get",
            path=path,
            tag="Documentation",
            summary="A page to read this document and to try requests",
            text="text/html",
        )
        for path in ("/docs", "/docs/")
    ),
)
