"""TGI's own routes: generation, and text to tokens."""

from frontend.openapi import examples
from frontend.openapi.operations.operation import BODY, GENERATION, Operation
from frontend.schema.answers.native import GenerateAnswer, StreamEvent
from frontend.schema.answers.tokenize import ChatTokenizeAnswer, TextToken
from frontend.schema.generate import GenerateBody, RootBody
from frontend.schema.openai import ChatBody

GENERATING = (
    Operation(
        method="post",
        path="/generate",
        tag="Generation",
        summary="Generate text",
        description="Answers when the whole text is there.",
        bodies=(GenerateBody,),
        examples=examples.GENERATE,
        answers=(GenerateAnswer,),
        errors=GENERATION,
        generates=True,
    ),
    Operation(
        method="post",
        path="/generate_stream",
        tag="Generation",
        summary="Generate text, token by token",
        description="One event per token; the last one carries the whole text. A request that "
        "cannot be served is answered with status 200 and one event that tells the error.",
        bodies=(GenerateBody,),
        examples=examples.GENERATE_STREAM,
        events=(StreamEvent,),
        errors=BODY,
        generates=True,
    ),
    Operation(
        method="post",
        path="/",
        tag="Generation",
        summary="Generate text, at once or token by token",
        description="`stream` decides between a list with the answer of `/generate` and the "
        "events of `/generate_stream`. The prompt stands before the text unless "
        "`return_full_text` is false, or the model's task on the hub is another than text "
        "generation.",
        bodies=(RootBody,),
        examples=examples.ROOT,
        answers=(list[GenerateAnswer],),
        events=(StreamEvent,),
        errors=GENERATION,
        generates=True,
    ),
)

TOKENIZING = (
    Operation(
        method="post",
        path="/tokenize",
        tag="Tokens",
        summary="The tokens of a text",
        description="Only `inputs` matters. Special tokens are added as for `/generate`.",
        bodies=(GenerateBody,),
        examples=examples.TOKENIZE,
        answers=(list[TextToken],),
        errors=BODY,
    ),
    Operation(
        method="post",
        path="/chat_tokenize",
        tag="Tokens",
        summary="The prompt of a conversation and its tokens",
        description="Only what makes the prompt matters. No special tokens are added to the "
        "template's.",
        bodies=(ChatBody,),
        examples=examples.CHAT_TOKENIZE,
        answers=(ChatTokenizeAnswer,),
        errors=BODY,
    ),
)
