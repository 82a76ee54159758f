"""All kinds of questions the built-in model is taught, and patterns of the held-out phrasings."""

from __future__ import annotations

import re
from typing import Final

from tools.builtin_model.dates import DATE_KINDS
from tools.builtin_model.kinds import FactKind, SumKind
from tools.builtin_model.places import PLACE_KINDS
from tools.builtin_model.sums import SUM_KINDS
from tools.builtin_model.things import THING_KINDS

FACT_KINDS: Final[tuple[FactKind, ...]] = PLACE_KINDS + THING_KINDS + DATE_KINDS
SLOT: Final = re.compile(r"\{[xyab]\}")


def held_out_patterns() -> list[re.Pattern[str]]:
    """One pattern per held-out phrasing: its words, with anything short in place of the slots."""
    kinds: tuple[FactKind | SumKind, ...] = FACT_KINDS + SUM_KINDS
    return [_pattern(template) for kind in kinds for template in kind.held_out]


def _pattern(template: str) -> re.Pattern[str]:
    pieces = [re.escape(piece) for piece in SLOT.split(template) if piece]
    pieces = [re.sub(r"\ba\\ $", r"an?\\ ", piece) for piece in pieces]  # "a owl" is mended
    return re.compile(r"[^.?!\n]{1,30}?".join(pieces), re.IGNORECASE)
