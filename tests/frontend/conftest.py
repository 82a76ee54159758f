"""A tiny model directory, made once."""

from pathlib import Path

import pytest

from tests.frontend.fakes import write_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")
