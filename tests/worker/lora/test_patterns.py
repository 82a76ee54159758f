"""Patterns for modules: PEFT's reading, in time that does not depend on who wrote them."""

import re

import pytest

from worker.lora.patterns import PatternError, Patterns

MODULES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.1.mlp.down_proj",
    "model.layers.1.mlp.up_proj",
    "q_proj",
    "my_q_proj",
]
"""None has a line's end in it."""


def as_peft(pattern: str, module: str) -> bool:
    """``peft.utils.other.get_pattern_key``."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "layers.1..*",
        "layers_1_mlp",
        r"layers\.\d+\.self_attn\.q_proj",
        r"layers\.(0|1)\..*",
        ".*",
        "[a-z]_proj",
        ".*_proj",
        "(q|down)_proj",
        "q_proj|mlp.up_proj",
        "q_proj$",
        "(?:up|down)_proj$",
        "^model.layers.0.self_attn.q_proj",
        "^q_proj$",
        r"^.*layers\.1\.",
        "(?i:Q_PROJ)",
        r"\w{1,4}_proj",
        "",
    ],
)
def test_a_pattern_means_what_it_does_in_peft(pattern: str) -> None:
    patterns = Patterns({pattern: 1})
    assert [patterns.find(module, 0) for module in MODULES] == [
        as_peft(pattern, module) for module in MODULES
    ]


def test_the_first_that_fits_counts() -> None:
    patterns = Patterns({"layers.0.*": 3, "q_proj": 4.5})
    assert [patterns.find(module, 9) for module in MODULES] == [3, 4.5, 9, 9, 4.5, 9]


@pytest.mark.parametrize("pattern", ["(.+)+!", "(a|a.|.)*!", ".*" * 40 + "!", "((.?){99}){99}!"])
def test_what_takes_others_for_ever_does_not_here(pattern: str) -> None:
    assert Patterns({pattern: 1}).find(MODULES[0], 0) == 0


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "'(' is no pattern (missing ), unterminated subpattern at position 0)"),
        ("a{99999999999999}", "is no pattern (the repetition number is too large)"),
        ("(" * 5000 + ")" * 5000, "… is no pattern (nested too deeply)"),
        ("\ud800", "surrogates not allowed"),
        ("[a&&b]", "'[a&&b]' is no pattern (Possible set intersection at position 2)"),
        (r"(q|k)_\1", "without references back"),
        (r"(?<!k)_proj", "is more than can be matched in limited time"),
        (r"q_proj|^lm_head", "(^ may begin a pattern without alternatives)"),
    ],
)
def test_what_cannot_be_read(pattern: str, why: str) -> None:
    with pytest.raises(PatternError) as caught:
        Patterns({"q_proj": 1, pattern: 1})
    assert why in str(caught.value)
    assert len(str(caught.value)) < 300
