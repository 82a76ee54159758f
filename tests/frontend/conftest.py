"""A tiny model directory, made once."""

from pathlib import Path

import pytest

from tests.frontend.fakes import TEMPLATE, write_model
from tests.frontend.text.rendering import STYLES


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def thinking_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template opens a reasoning section if it is told to."""
    template = TEMPLATE + "{% if enable_thinking %}{# <think> </think> #}!{% endif %}"
    return write_model(tmp_path_factory.mktemp("thinking"), template=template)


@pytest.fixture(scope="session")
def channels_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers in channels, whose markers are special tokens."""
    markers = ("start", "channel", "constrain", "message", "end", "return")
    return write_model(
        tmp_path_factory.mktemp("channels") / "model",
        template=STYLES["gpt_oss"],
        special=tuple(f"<|{marker}|>" for marker in markers),
    )
