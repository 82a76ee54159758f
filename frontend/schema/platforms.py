"""The requests of hosting platforms: Vertex AI's instances and KServe's tensors of texts."""

from typing import Any

import msgspec

from frontend.schema.generate import GenerateParameters


class VertexBody(msgspec.Struct, frozen=True):
    """``/vertex``. Each instance is a native request (``inputs``) or a chat request."""

    instances: list[dict[str, Any]]


class InferInput(msgspec.Struct, frozen=True):
    """One tensor: a single text, as itself or as its UTF-8 bytes."""

    name: str
    data: list[str | int | list[int]]
    shape: list[int] = []
    datatype: str = "BYTES"


class InferOutput(msgspec.Struct, frozen=True):
    """The name of an answer."""

    name: str


class InferBody(msgspec.Struct, frozen=True):
    """``/v2/models/{name}/infer``: one text for each input, answered under the output's name."""

    inputs: list[InferInput]
    outputs: list[InferOutput] = []
    """As many as inputs; none: the inputs' names."""
    id: str = ""
    parameters: GenerateParameters = GenerateParameters(do_sample=True)
