"""The routes that hosting platforms ask for: SageMaker, Vertex AI, KServe."""

from frontend.openapi import examples
from frontend.openapi.operations.operation import GENERATION, Operation
from frontend.schema.answers.errors import OpenAIErrorAnswer, TgiStreamError
from frontend.schema.answers.native import GenerateAnswer, StreamEvent
from frontend.schema.answers.openai import ChatChunk, ChatCompletion, Completion, CompletionChunk
from frontend.schema.answers.platforms import (
    InferAnswer,
    KServeLive,
    KServeModel,
    KServeServer,
    VertexAnswer,
)
from frontend.schema.generate import RootBody
from frontend.schema.openai import ChatBody, CompletionBody
from frontend.schema.platforms import InferBody, VertexBody

_MODELS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
"""KServe's models have versions; ours is called by any name."""

PLATFORMS = (
    Operation(
        method="post",
        path="/invocations",
        tag="Platforms",
        summary="Any generating request, for SageMaker",
        description="A body with `inputs` is answered as by `POST /`, one with `messages` as by "
        "`/v1/chat/completions`, one with `prompt` as by `/v1/completions`.",
        bodies=(RootBody, ChatBody, CompletionBody),
        examples=examples.INVOCATIONS,
        answers=(list[GenerateAnswer], ChatCompletion, Completion),
        events=(StreamEvent, ChatChunk, CompletionChunk, OpenAIErrorAnswer, TgiStreamError),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="post",
        path="/vertex",
        tag="Platforms",
        summary="Several requests at once, for Vertex AI",
        description="The predictions are texts, in the order of the instances. If one instance "
        "fails, all do.",
        bodies=(VertexBody,),
        examples=examples.VERTEX,
        answers=(VertexAnswer,),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="get",
        path="/v2",
        tag="Platforms",
        summary="The server, for KServe",
        answers=(KServeServer,),
    ),
    Operation(
        method="get",
        path="/v2/health/live",
        tag="Platforms",
        summary="Does this server answer? For KServe",
        answers=(KServeLive,),
    ),
    Operation(
        method="get",
        path="/v2/health/ready",
        tag="Platforms",
        summary="Can this server generate text? For KServe",
        answers=(KServeLive,),
        errors=(503,),
    ),
    *(
        Operation(
            method="get",
            path=path,
            tag="Platforms",
            summary="The model, for KServe",
            description="Any name and version are right.",
            answers=(KServeModel,),
        )
        for path in _MODELS
    ),
    *(
        Operation(
            method="get",
            path=f"{path}/ready",
            tag="Platforms",
            summary="Can the model generate text? For KServe",
            answers=(KServeLive,),
            errors=(503,),
        )
        for path in _MODELS
    ),
    *(
        Operation(
            method="post",
            path=f"{path}/infer",
            tag="Platforms",
            summary="Several texts continued at once, for KServe",
            description="Each input is one text; its answer is the output of the same place.",
            bodies=(InferBody,),
            examples=examples.INFER,
            answers=(InferAnswer,),
            errors=GENERATION,
            generates=True,
        )
        for path in _MODELS
    ),
)
