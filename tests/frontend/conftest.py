"""A tiny model directory, made once."""

from pathlib import Path

import pytest

from tests.frontend.fakes import TEMPLATE, write_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def thinking_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template opens a reasoning section if it is told to."""
    template = TEMPLATE + "{% if enable_thinking %}{# <think> </think> #}!{% endif %}"
    return write_model(tmp_path_factory.mktemp("thinking"), template=template)
