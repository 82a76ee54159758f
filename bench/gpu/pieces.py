"""A result that is written piece by piece: whoever is killed on the way leaves what it had."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu.shapes import DEFAULT

Clock = Callable[[], float]


class Budget:
    """Seconds that a run may take; infinite if nothing else is said."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left_s(self) -> float:
        """Of it; never negative."""
        return max(0.0, self._end - self._clock())

    @property
    def over(self) -> bool:
        """Nothing more should begin."""
        return self.left_s <= 0.0


class Result:
    """Nested numbers, and their file: ``<device>-<date>.json``, once the device is known."""

    def __init__(self, directory: Path, found: dict[str, Any]) -> None:
        self._directory = directory
        self.found = found
        self.path: Path | None = None

    def add(self, piece: dict[str, Any]) -> None:
        """Mix it in, and write the file anew."""
        merge(self.found, piece)
        if "device" not in self.found.get("engine", {}):
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        self.path = self._directory / file_of(self.found)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.found, indent=1) + "\n")
        os.replace(beside, self.path)


def merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    """Dictionaries are joined, lists get longer, everything else is replaced."""
    for key, value in piece.items():
        held = into.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            merge(held, value)
        elif isinstance(held, list) and isinstance(value, list):
            held.extend(value)
        else:
            into[key] = value


def file_of(found: dict[str, Any]) -> str:
    """``nvidia-h200-2026-11-28.json``; others beside it for other shapes, and without graphs."""
    device = re.sub(r"[^a-z0-9]+", "-", found["engine"]["device"].lower()).strip("-")
    shape = "" if found["shape"] == DEFAULT else f"-{found['shape']}"
    without = "" if found.get("graphs", True) else "-no-graphs"
    return f"{device}{shape}{without}-{found['date']}.json"
