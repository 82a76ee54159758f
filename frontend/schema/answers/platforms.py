"""Answers of the hosting platforms' routes."""

from typing import Literal

from frontend.schema import U32
from frontend.schema.answers import Answer


class VertexAnswer(Answer, frozen=True, kw_only=True):
    """The answer of `/vertex`."""

    predictions: list[str]
    """The texts, in the order of the instances."""


class KServeLive(Answer, frozen=True, kw_only=True):
    """That a server or model is there."""

    live: Literal[True]
    """Always true: what is not there answers an error."""


class KServeServer(Answer, frozen=True, kw_only=True):
    """The answer of `/v2`."""

    name: str
    """A constant, by which clients tell servers with this interface."""
    version: str
    """Version of the server."""
    extensions: list[str]
    """What it does besides."""


class KServeModel(Answer, frozen=True, kw_only=True):
    """The model under the name that it was asked for by."""

    name: str
    """That name."""
    version: str
    """That version; empty if none was given."""
    extensions: list[str]
    """What can be asked of it."""


class InferredOutput(Answer, frozen=True, kw_only=True):
    """One text."""

    name: str
    """Its name."""
    shape: list[U32]
    """1, and the number of entries in `data`."""
    datatype: Literal["BYTES"]
    """Always `BYTES`."""
    data: list[str | int]
    """One string, or the bytes of its UTF-8 if the input was given so."""


class InferAnswer(Answer, frozen=True, kw_only=True):
    """The answer of `/v2/models/{model}/infer`."""

    id: str
    """The request's own."""
    outputs: list[InferredOutput]
    """The texts, in the order of the inputs."""
