"""The routes under ``/v1`` that speak OpenAI's API."""

from frontend.openapi import examples
from frontend.openapi.operations.operation import GENERATION, Operation
from frontend.schema.answers.errors import TgiStreamError
from frontend.schema.answers.info import Model, ModelList
from frontend.schema.answers.openai import ChatChunk, ChatCompletion, Completion, CompletionChunk
from frontend.schema.answers.responses import (
    ArgumentsDelta,
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    OutputTextDelta,
    OutputTextDone,
    PartAdded,
    PartDone,
    ReasoningDelta,
    ReasoningDone,
    ResponseCompleted,
    ResponseCreated,
    ResponseErrorEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponsesAnswer,
)
from frontend.schema.openai import ChatBody, CompletionBody
from frontend.schema.responses import ResponsesBody

OPENAI = (
    Operation(
        method="post",
        path="/v1/chat/completions",
        tag="OpenAI",
        summary="Continue a conversation",
        description="With `stream`, the answer is a stream of chunks that ends with "
        "`data: [DONE]`. Any model name is accepted.",
        bodies=(ChatBody,),
        examples=examples.CHAT,
        answers=(ChatCompletion,),
        events=(ChatChunk, TgiStreamError),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="post",
        path="/v1/completions",
        tag="OpenAI",
        summary="Continue one or several prompts",
        description="With `stream`, the answer is a stream of chunks that ends with "
        "`data: [DONE]`; the chunks of several prompts come interleaved. Any model name is "
        "accepted.",
        bodies=(CompletionBody,),
        examples=examples.COMPLETIONS,
        answers=(Completion,),
        events=(CompletionChunk, TgiStreamError),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="post",
        path="/v1/responses",
        tag="OpenAI",
        summary="Continue a conversation, in items",
        description="With `stream`, the answer is a stream of numbered events, each named after "
        "its `type`; the last one holds the whole response. Any model name is accepted. Nothing "
        "is stored: each request holds the whole conversation.",
        bodies=(ResponsesBody,),
        examples=examples.RESPONSES,
        answers=(ResponsesAnswer,),
        events=(
            ResponseCreated,
            ResponseInProgress,
            ItemAdded,
            PartAdded,
            OutputTextDelta,
            OutputTextDone,
            ReasoningDelta,
            ReasoningDone,
            ArgumentsDelta,
            ArgumentsDone,
            PartDone,
            ItemDone,
            ResponseCompleted,
            ResponseIncomplete,
            ResponseFailed,
            ResponseErrorEvent,
        ),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="get",
        path="/v1/models",
        tag="OpenAI",
        summary="List the model",
        answers=(ModelList,),
    ),
    Operation(
        method="get",
        path="/v1/models/{model}",
        tag="OpenAI",
        summary="Describe the model",
        answers=(Model,),
        errors=(404,),
    ),
)
