"""How much a model is to reason, under the names that templates give it; runs in front ends."""

from typing import Any

_TRAINED = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Efforts beyond those that models are trained with."""


def effort_variables(effort: str | None) -> dict[str, Any]:
    """The variables of a chat template; none if nothing is said of an effort."""
    if effort is None:
        return {}
    reasons = effort != "none"
    switches = {"enable_thinking": reasons, "thinking": reasons}
    return {**switches, "reasoning_effort": trained(effort)} if reasons else switches


def trained(effort: str) -> str:
    """The same effort, or the nearest that models are trained with."""
    return _TRAINED.get(effort, effort)
