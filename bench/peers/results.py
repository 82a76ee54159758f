"""What is kept of a comparison: one JSON file, which a later call continues.

Owns the file's form and the figures derived from it: medians, and ratios of ours to a peer's within
the same round, so that what slows the machine for a while slows both. Knows nothing of processes.
"""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "ours"


@dataclass
class Results:
    """Everything that was found."""

    path: Path
    size: str
    commit: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    """``bench.machine.facts``."""
    steps: dict[str, Any] = field(default_factory=dict)
    """``bench.engine.steps``."""
    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name: how it is run, its version, seconds to start."""
    rounds: dict[str, list[dict[str, dict[str, Any]]]] = field(default_factory=dict)
    """By peer, of each round: of ``ours`` and of the peer, by row, ``value`` and ``figures``."""
    troubles: dict[str, str] = field(default_factory=dict)
    """By peer: why it has no figures, or no more."""

    @classmethod
    def read(cls, path: Path, size: str, commit: str) -> "Results":
        """What is in the file; nothing yet if there is none."""
        if not path.exists():
            return cls(path, size, commit)
        return cls(path, **json.loads(path.read_text()))

    def write(self) -> None:
        """The whole file anew."""
        kept = {name: value for name, value in vars(self).items() if name != "path"}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(kept, indent=1) + "\n")

    def value(self, peer: str, side: str, row: str) -> float | None:
        """The median over the rounds with this peer, of its side or of ours."""
        found = [value for value in self._values(peer, side, row) if value is not None]
        return statistics.median(found) if found else None

    def ours(self, row: str) -> float | None:
        """Our median over all rounds with any peer."""
        found = [
            value
            for peer in self.rounds
            for value in self._values(peer, OURS, row)
            if value is not None
        ]
        return statistics.median(found) if found else None

    def ratio(self, peer: str, row: str) -> float | None:
        """The median of ours / the peer's, each within one round."""
        pairs = zip(self._values(peer, OURS, row), self._values(peer, peer, row), strict=True)
        found = [mine / other for mine, other in pairs if mine is not None and other]
        return statistics.median(found) if found else None

    def _values(self, peer: str, side: str, row: str) -> list[float | None]:
        return [_value(found[side], row) for found in self.rounds.get(peer, [])]

    def attention(self) -> dict[str, float] | None:
        """What the longer context costs a step of the most streams; None if not measured.

        ``attention_ms`` beyond the shorter one, ``read_ms`` of reading those keys and values once.
        """
        if not self.steps or not self.machine:
            return None
        streams, by_context = list(self.steps["step_ms"].items())[-1]
        (short, short_ms), *_, (long, long_ms) = by_context.items()
        read = (int(long) - int(short)) * int(streams) * self.steps["kv_bytes_per_token"]
        gb_s = max(self.machine["read_gb_s"].values())
        return {
            "streams": float(streams),
            "context": float(long),
            "step_ms": long_ms,
            "attention_ms": long_ms - short_ms,
            "read_ms": read / gb_s / 1e6,
            "gb_s": gb_s,
        }


def _value(side: Mapping[str, Any], row: str) -> float | None:
    found = side.get(row, {}).get("value")
    return None if found is None else float(found)
