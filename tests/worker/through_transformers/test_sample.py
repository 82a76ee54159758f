"""A few classes of each tier, token for token like transformers' generate; all: make models-test.

The sample has what is particular in each tier: sinks, caps, windows by layer, keys wider than
values, shared keys, loops over layers, biases by position, recurrent state in caches and modules.
"""

import pytest

from tests.worker.through_transformers.outcomes import outcome_of

SAMPLE = {
    "native": ["llama", "gpt_oss"],
    "paged": [
        "granite_swa",
        "cohere2",
        "deepseek_v3",
        "gemma3n_text",
        "hrm_text",
        "granitemoe",
        "opt",
    ],
    "own cache": ["bloom", "falcon", "mamba", "recurrent_gemma", "moshi", "llama4_text"],
    "refused": ["cpmant", "gemma4_assistant"],
}


@pytest.mark.parametrize(
    ("tier", "model_type"), [(tier, name) for tier, names in SAMPLE.items() for name in names]
)
def test_a_class_of_each_kind(tier, model_type, tmp_path):
    assert outcome_of(model_type, tmp_path).tier == tier
