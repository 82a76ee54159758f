"""A follower that has no memory says what its leader would say; one that ends leaves no group."""

import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import StartupError
from common.messages import Form, Forward, Leave, Logits, MakeCache, Measure, Record
from worker.cache import KVCache, LayerShape
from worker.errors import GroupLostError
from worker.parallel.follower import Follower
from worker.parallel.group import Group
from worker.parallel.steps import bytes_of
from worker.sharding import Sharding

CPU = torch.device("cpu")
FORWARD = Forward(1, 1, 1, 0, bytes_of(torch.arange(7).numpy()))
"""Of one token."""


class Berth:
    """These messages, and no others."""

    def __init__(self, *messages: Any) -> None:
        self._messages = iter(messages)

    def receive(self) -> Any:
        return next(self._messages)

    def collective(self) -> AbstractContextManager[None]:
        return nullcontext()


class Model:
    """A model of one layer, which may fail."""

    def __init__(self, failures: Iterable[Exception] = ()) -> None:
        self.configuration = SimpleNamespace(kv_layers=(LayerShape(2, 64),))
        self.asked: list[str] = []
        self._failures = iter(failures)

    def make_cache(self, *given: Any) -> KVCache:
        return KVCache(*given, torch.float32)

    def forward(self, inputs: Any, cache: Any) -> torch.Tensor:
        self.asked.append("forward")
        for failure in self._failures:
            raise failure
        return torch.zeros(4, 2)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.asked.append(f"logits of {len(hidden)}")
        return hidden


class Fake:
    """A group that says what becomes of it."""

    sharding = Sharding()

    def __init__(self, *, can_form_again: bool) -> None:
        self.can_form_again = can_form_again
        self.formed = True
        self.events: list[str] = []

    def form(self, store: str) -> None:
        self.formed = True
        self.events.append(store)

    def give_up(self) -> None:
        self.formed = False
        self.events.append("given up")


def follower_in(group: Any, model: Any = None, **options: Any) -> Follower:
    return Follower(model or Model(), group, CPU, lambda _: 0, **options)


@pytest.mark.parametrize("blocks", [10**10, 10**15])
def test_a_cache_that_does_not_fit(blocks: int) -> None:
    follower = follower_in(Group(0, 1, CPU))
    with pytest.raises(StartupError, match=rf"no memory for {(blocks - 1) * 16} tokens"):
        follower.follow(Berth(MakeCache(blocks)))


def test_another_error_of_a_cache_is_not_taken_for_want_of_memory() -> None:
    model = Model()
    model.make_cache = lambda *given: torch.zeros(2) + torch.zeros(3)  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="must match"):
        follower_in(Group(0, 1, CPU), model).follow(Berth(MakeCache(2)))


def test_a_follower_that_is_dismissed_has_given_its_group_up(tmp_path: Path) -> None:
    """Its thread is not there any more when the interpreter ends."""
    group = Group(0, 1, CPU)
    group.form(str(tmp_path / "store"))
    follower_in(group).follow(Berth(Leave()))
    assert not group.formed


def test_what_is_measured_is_what_is_left_without_the_last_cache(tmp_path: Path) -> None:
    """Nor what has been recorded over it, nor the last rows; and there are never two caches."""
    group = Group(0, 1, CPU)
    group.form(str(tmp_path / "store"))
    made: list[Any] = []
    found: list[Any] = []

    def alive() -> int:
        return sum(one() is not None for one in made)

    class Watched(Model):
        def make_cache(self, *given: Any) -> KVCache:
            found.append(alive())
            cache = super().make_cache(*given)
            made.append(weakref.ref(cache))
            return cache

        def forward(self, inputs: Any, cache: Any) -> torch.Tensor:
            hidden = super().forward(inputs, cache)
            made.append(weakref.ref(hidden))
            return hidden

    def measure(activation_bytes: int) -> int:
        found.append((activation_bytes, alive()))
        return 0

    def make_steps(model: Any, cache: Any, transfers: Any) -> Any:
        steps = SimpleNamespace(cache=cache)
        steps.own = steps  # as graphs and what they call hold each other
        return steps

    messages = MakeCache(2), FORWARD, MakeCache(3), FORWARD, Measure(7), MakeCache(2), Leave()
    model: Any = Watched()
    Follower(model, group, CPU, measure, make_steps).follow(Berth(*messages))  # type: ignore[arg-type]
    assert found == [0, 0, (7, 0), 0]
    assert len(made) == 5


def test_after_a_step_that_fails_nothing_is_done_until_there_is_a_group_again() -> None:
    group, model = Fake(can_form_again=True), Model([MemoryError("too large")])
    rest = Logits(1, 2), Form("/store", 1), FORWARD, Logits(1, 2), Leave()
    follower_in(group, model).follow(Berth(MakeCache(2), FORWARD, *rest))
    assert model.asked == ["forward", "forward", "logits of 2"]
    assert group.events == ["given up", "/store", "given up"]


def test_a_step_that_fails_where_others_wait_on_loses_the_group() -> None:
    group, model = Fake(can_form_again=False), Model([MemoryError("too large")])
    with pytest.raises(GroupLostError, match="a step failed: too large"):
        follower_in(group, model).follow(Berth(MakeCache(2), FORWARD))
    assert not group.events


def test_a_leader_that_is_ahead_of_a_shard_that_is_not() -> None:
    message = Record(1, 1, b"")
    with pytest.raises(GroupLostError, match="the leader is ahead of its host"):
        follower_in(Group(0, 1, CPU)).follow(Berth(MakeCache(2), message))


def test_a_step_ahead_that_fails_loses_the_group() -> None:
    def fail(changes: Any) -> None:
        raise MemoryError("too large")

    steps: Any = SimpleNamespace(record=fail)
    follower = follower_in(Fake(can_form_again=True), make_steps=lambda *given: steps)
    with pytest.raises(GroupLostError, match="a step failed: too large"):
        follower.follow(Berth(MakeCache(2), Record(1, 1, b"")))
