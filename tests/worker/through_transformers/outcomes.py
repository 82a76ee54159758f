"""What becomes of a class of transformers' causal-LM mapping: its tier, or why it is refused.

A tiny random model is made, continued by ``generate``, saved, loaded as a worker loads it, and
continued by the engine. Equal texts, token for token, or an AssertionError.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from common.errors import StartupError
from tests.worker.driver import CPU
from tests.worker.through_transformers.compare import make_talkative, make_tiny, served
from tests.worker.through_transformers.shrink import tiny_config
from worker.loading import load_model
from worker.models.model import Model

Tier = Literal["native", "paged", "own cache", "refused"]

NOT_MADE = {
    "dots3_note": "has no small configuration with its parts for images and sound, so it is not"
    " tried; its text model alone (dots3_note_text) is served",
    "gemma3n": "needs packages for images (timm, Pillow), which Millrace does not install",
    "gemma4_assistant": "drafts tokens for another model, from whose cache it reads",
    "musicgen": "generates sound: several streams of codes, after a text that an encoder has read",
    "musicgen_melody": "generates sound: several streams of codes, after a text and a melody",
}
"""Model types of which transformers makes no model from a configuration alone."""

NOT_GENERATING = {
    "blt": "is run by transformers' generate no more than by us: it reads bytes, in patches",
    "cpmant": "is not causal: the tokens of a prompt see each other",
    "gemma4_unified_assistant": "drafts tokens for another model, from whose cache it reads",
    "prophetnet": "is not causal: its scores of a position change with later tokens",
    "xlnet": "is not causal: it predicts tokens in any order",
}
"""Model types that are loaded and then refused."""

NO_DECODERS = frozenset(NOT_MADE) - {"dots3_note", "gemma3n"} | frozenset(NOT_GENERATING)
"""Those that are no decoder-only models of text: not counted among them."""


@dataclass(frozen=True)
class Outcome:
    """Of one model type."""

    model_type: str
    tier: Tier
    reason: str = ""


def outcome_of(model_type: str, directory: Path) -> Outcome:
    """Try it; ``directory`` is for its checkpoint."""
    if model_type in NOT_MADE:
        with pytest.raises((ImportError, AttributeError, StrictDataclassError)):
            make_tiny(tiny_config(model_type))
        return Outcome(model_type, "refused", NOT_MADE[model_type])
    config = tiny_config(model_type)
    if model_type in NOT_GENERATING:
        make_tiny(config).save_pretrained(directory)
        with pytest.raises(StartupError, match=r"is not causal|cannot generate|cannot make"):
            load(directory)
        return Outcome(model_type, "refused", NOT_GENERATING[model_type])
    tiny, texts = make_talkative(config)
    tiny.save_pretrained(directory)
    del tiny
    model = load(directory)
    assert served(model) == texts
    return Outcome(model_type, tier_of(model))


def load(directory: Path) -> Model:
    """As a worker does, in float32."""
    return load_model(str(directory), device=CPU, dtype=torch.float32)


def tier_of(model: Model) -> Tier:
    """By the class that serves it."""
    name = type(model).__name__
    return {"PagedModel": "paged", "OwnCacheModel": "own cache"}.get(name, "native")  # type: ignore[return-value]
