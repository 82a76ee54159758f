"""A follower that has no memory says what its leader would say."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import StartupError
from common.messages import MakeCache
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


@pytest.mark.parametrize("blocks", [10**10, 10**15])
def test_a_cache_that_does_not_fit(blocks: int) -> None:
    shape = SimpleNamespace(kv_layers=(LayerShape(2, 64),))
    device = torch.device("cpu")
    model = SimpleNamespace(
        configuration=shape, make_cache=lambda *given: KVCache(*given, torch.float32)
    )
    follower = Follower(model, Group(0, 1, device), device, lambda _: 0)
    with pytest.raises(StartupError, match=rf"no memory for {(blocks - 1) * 16} tokens"):
        follower.follow(Berth(MakeCache(blocks)))
