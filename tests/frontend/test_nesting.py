"""How deeply documents nest."""

from typing import Any

import pytest

from frontend.nesting import depth_exceeds


@pytest.mark.parametrize("depth", [0, 1, 2, 99, 2000])
def test_depth(depth: int) -> None:
    value: Any = "x"
    for level in range(depth):
        value = {"items": value} if level % 2 else [1, value]
    assert not depth_exceeds(value, depth)
    assert depth == 0 or depth_exceeds(value, depth - 1)
