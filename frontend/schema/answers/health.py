"""Answers of ``/health/progress``."""

from typing import Literal

from frontend.schema.answers import Answer


class ReplicaProgress(Answer, frozen=True, kw_only=True):
    """A copy of the model, as the scheduler sees it."""

    replica: int
    """Its number."""
    ready: bool
    """Whether it takes new work."""
    running: int
    """Sequences that it runs."""
    progress_age_s: float
    """Seconds since its last step; without work, since its last sign of life."""


class ProgressAnswer(Answer, frozen=True, kw_only=True):
    """What runs and what waits, by a heartbeat that is about a second old at most."""

    replicas: list[ReplicaProgress]
    """Every copy of the model, also those that are being started."""
    waiting: int
    """Sequences that wait."""
    running: int
    """Sequences that run."""
    accepting: bool
    """Whether new requests are taken; false while the server stops."""


class StalledAnswer(Answer, frozen=True, kw_only=True):
    """The same while work gets nowhere, and why that is so."""

    error: str
    """Who makes no progress."""
    error_type: Literal["healthcheck"]
    """What kind of error it is."""
    replicas: list[ReplicaProgress]
    """Every copy of the model, also those that are being started."""
    waiting: int
    """Sequences that wait."""
    running: int
    """Sequences that run."""
    accepting: bool
    """Whether new requests are taken; false while the server stops."""
