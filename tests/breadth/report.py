"""Writes docs/supported_models.md from what became of every class."""

from pathlib import Path

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from tests.worker.through_transformers.outcomes import NO_DECODERS, Outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "supported_models.md"
PROSE = Path(__file__).with_name("supported_models.in.md")
TIERS = {
    "native": "native",
    "paged": "paged, through transformers",
    "own cache": "own cache, one at a time",
    "refused": "refused",
}


def page(outcomes: list[Outcome]) -> str:
    """The whole document."""
    prose = PROSE.read_text()
    decoders = [outcome for outcome in outcomes if outcome.model_type not in NO_DECODERS]
    passed = sum(outcome.tier != "refused" for outcome in decoders)
    counts = {
        tier: len({CAUSAL[outcome.model_type] for outcome in outcomes if outcome.tier == tier})
        for tier in TIERS
    }
    values = {
        "version": transformers.__version__,
        "types": str(len(outcomes)),
        "classes": str(len({CAUSAL[outcome.model_type] for outcome in outcomes})),
        "decoders": str(len(decoders)),
        "passed": str(passed),
        "table": _table(outcomes),
        "refused_table": _refused(outcomes),
        **{tier.replace(" ", "_"): str(count) for tier, count in counts.items()},
    }
    for name, value in values.items():
        prose = prose.replace(f"{{{{{name}}}}}", value)
    return prose


def _table(outcomes: list[Outcome]) -> str:
    """A row for each class that is served; several model types may share one."""
    types: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.tier != "refused":
            key = (CAUSAL[outcome.model_type], outcome.tier)
            types.setdefault(key, []).append(outcome.model_type)
    rows = [
        f"| `{name}` | {', '.join(sorted(names))} | {TIERS[tier]} |"
        for (name, tier), names in sorted(types.items())
    ]
    return "\n".join(["| class | model types | how it runs |", "|---|---|---|", *rows])


def _refused(outcomes: list[Outcome]) -> str:
    rows = sorted(
        f"| `{CAUSAL[outcome.model_type]}` | {outcome.model_type} | {outcome.reason} |"
        for outcome in outcomes
        if outcome.tier == "refused"
    )
    return "\n".join(["| class | model type | it |", "|---|---|---|", *rows])
