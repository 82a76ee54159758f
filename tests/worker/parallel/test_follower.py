"""A follower that has no memory says what its leader would say; one that ends leaves no group."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import StartupError
from common.messages import Leave, MakeCache
from worker.cache import KVCache, LayerShape
from worker.parallel.follower import Follower
from worker.parallel.group import Group


@dataclass
class Berth:
    """One message, and no second."""

    message: Any
    received: int = field(default=0)

    def receive(self) -> Any:
        assert not self.received
        self.received += 1
        return self.message


CPU = torch.device("cpu")


def follower_in(group: Group) -> Follower:
    shape = SimpleNamespace(kv_layers=(LayerShape(2, 64),))
    model = SimpleNamespace(
        configuration=shape, make_cache=lambda *given: KVCache(*given, torch.float32)
    )
    return Follower(model, group, CPU, lambda _: 0)


@pytest.mark.parametrize("blocks", [10**10, 10**15])
def test_a_cache_that_does_not_fit(blocks: int) -> None:
    follower = follower_in(Group(0, 1, CPU))
    with pytest.raises(StartupError, match=rf"no memory for {(blocks - 1) * 16} tokens"):
        follower.follow(Berth(MakeCache(blocks)))


def test_a_follower_that_is_dismissed_has_given_its_group_up(tmp_path: Path) -> None:
    """Its thread is not there any more when the interpreter ends."""
    group = Group(0, 1, CPU)
    group.form(str(tmp_path / "store"))
    follower_in(group).follow(Berth(Leave()))
    assert not group.formed
