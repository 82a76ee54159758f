"""The routes that speak Anthropic's Messages API."""

from frontend.openapi import examples
from frontend.openapi.operations.operation import BODY, GENERATION, Operation
from frontend.schema.answers.messages import (
    BlockDelta,
    BlockStart,
    BlockStop,
    MessageDelta,
    MessageEnd,
    MessagesAnswer,
    MessageStart,
    Ping,
    TokenCount,
)
from frontend.schema.messages import CountTokensBody, MessagesBody

ANTHROPIC = (
    Operation(
        method="post",
        path="/v1/messages",
        tag="Anthropic",
        summary="Continue a conversation",
        description="With `stream`, the answer is a stream of events, each named after its "
        "`type`. Any model name is accepted.",
        bodies=(MessagesBody,),
        examples=examples.MESSAGES,
        answers=(MessagesAnswer,),
        events=(MessageStart, Ping, BlockStart, BlockDelta, BlockStop, MessageDelta, MessageEnd),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="post",
        path="/v1/messages/count_tokens",
        tag="Anthropic",
        summary="How long the prompt of a conversation is",
        bodies=(CountTokensBody,),
        examples=examples.COUNT_TOKENS,
        answers=(TokenCount,),
        errors=BODY,
    ),
)
