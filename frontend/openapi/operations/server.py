"""What tells about the server: health, limits, metrics, and this document."""

from typing import Any

from common.routes import PLAYGROUND
from frontend.openapi.operations.operation import Operation
from frontend.schema.answers.health import ProgressAnswer, StalledAnswer
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
        for path in ("/health", "/health/ready", "/ping", "/")
    ),
    Operation(
        method="get",
        path="/health/live",
        tag="Server",
        summary="Does this process answer?",
        description="Says nothing about the model: whoever asks this wants to know whether to "
        "start the server again.",
    ),
    Operation(
        method="get",
        path="/health/progress",
        tag="Server",
        summary="Does every replica that has work get on with it?",
        description="503 if one has been silent for half of the time after which it is replaced, "
        "and while the scheduler is silent. A replica without work, or one that is being "
        "started, is no reason: whether text can be generated is what `/health/ready` tells.",
        answers=(ProgressAnswer,),
        errors=(503,),
        own_failures=(StalledAnswer,),
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
    Operation(
        method="get",
        path=PLAYGROUND,
        tag="Documentation",
        summary="A page to try the model with",
        description="Switched off with `--no-playground`, and by default if there are keys.",
        text="text/html",
        errors=(404,),
    ),
)
