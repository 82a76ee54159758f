"""Answers of ``/info`` and ``/v1/models``."""

from typing import Literal

from msgspec import UNSET, UnsetType

from frontend.schema.answers import Answer


class Info(Answer, frozen=True, kw_only=True):
    """What this server is, and the limits in force."""

    model_id: str
    """Name of the model, or the directory that it was started with."""
    model_sha: str | None
    """Commit of the model on the hub."""
    model_pipeline_tag: str | None
    """Task of the model, as the hub says."""
    max_concurrent_requests: int
    """Sequences that may be alive at once, waiting ones included."""
    max_best_of: int
    """Largest `best_of` of a native request."""
    max_stop_sequences: int
    """Most stop strings of a request."""
    max_input_tokens: int
    """Most tokens of a prompt."""
    max_total_tokens: int
    """Most tokens of a prompt and what is generated after it."""
    validation_workers: int
    """Tokenizer threads of each front-end process."""
    max_client_batch_size: int
    """Most prompts of one completion request."""
    router: Literal["text-generation-router"]
    """A constant, by which clients tell servers with this interface."""
    version: str
    """Version of the server."""
    sha: str | None
    """Commit of the server."""
    docker_label: str | None
    """Label of the image."""
    model_dtype: str | None
    """Number format of the weights; null while no replica is ready."""
    model_device_type: str | None
    """What computes; null while no replica is ready."""
    max_input_length: int
    """Older name of `max_input_tokens`."""
    waiting_served_ratio: float
    """Waiting sequences join the running ones when there are so many times as many of them."""
    max_batch_total_tokens: int | None
    """Tokens of keys and values that a replica has room for; null while that is not known."""
    max_waiting_tokens: int
    """Steps after which waiting sequences join whatever their number."""
    max_batch_size: int | None
    """Most sequences of a step; null if only memory bounds them."""


class Model(Answer, frozen=True, kw_only=True):
    """A model or one of its adapters, as OpenAI's clients list it."""

    id: str
    """Its name."""
    object: Literal["model"]
    """What this is."""
    created: int
    """Always 0."""
    owned_by: str
    """The name of the model."""
    parent: str | UnsetType = UNSET
    """Of an adapter: the model whose weights it is added to."""


class ModelList(Answer, frozen=True, kw_only=True):
    """The answer of `/v1/models`."""

    object: Literal["list"]
    """What this is."""
    data: list[Model]
    """The model, and its adapters."""
