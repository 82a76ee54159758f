"""docs/supported_models.md knows every class of the transformers that is installed."""

import re
from pathlib import Path

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

PAGE = Path(__file__).parents[3] / "docs" / "supported_models.md"


def test_every_class_is_listed():
    text = PAGE.read_text()
    found = re.search(r"written by `make models-test` with transformers\s+(\S+):", text)
    assert found is not None
    assert "{{" not in text
    if found[1] == transformers.__version__:
        missing = {name for name in CAUSAL.values() if f"| `{name}` |" not in text}
        assert not missing
