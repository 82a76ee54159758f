"""What a leader says to its followers, and leaves behind; who they are is not asked here."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.messages import Leave, Logits, MakeCache, Measure
from tests.worker.parallel.drivers import together
from tests.worker.parallel.groups import Groups
from tests.worker.tiny import write_tiny_llama
from worker.errors import GroupLostError
from worker.inputs import StepInputs
from worker.parallel.leader import Leader, LeadingModel
from worker.sharding import Sharding


class Crew:
    """Followers that do nothing."""

    pids = [17]

    def __init__(self, directory: Path) -> None:
        self.sent: list[Any] = []
        self._directory = directory
        self._stores = 0

    def assemble(self) -> None:
        pass

    def new_store(self) -> Path:
        self._stores += 1
        return self._directory / f"store-{self._stores}"

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def collective(self) -> AbstractContextManager[None]:
        return nullcontext()

    def dismiss(self) -> None:
        self.send(Leave())


class Group:
    """Whose devices can, or cannot, be freed from a collective."""

    sharding = Sharding()

    def __init__(
        self, *, can_form_again: bool = True, comes: tuple[bool | None, ...] = (True, True)
    ) -> None:
        """``comes``: whether anybody does, each time; None: there is not even a file."""
        self.can_form_again = can_form_again
        self.events: list[str] = []
        self._comes = iter(comes)

    def form(self, store: str) -> None:
        self.events.append("form")
        came = next(self._comes)
        if came is not None:
            Path(store).touch()
        if not came:
            raise RuntimeError("nobody came")

    def give_up(self) -> None:
        self.events.append("give up")

    def least(self, number: int) -> int:
        return number - 1


def led(directory: Path, **changes: Any) -> tuple[Leader, Any, Any]:
    crew, group = Crew(directory), Group(**changes)
    return Leader(crew, group), crew, group  # type: ignore[arg-type]


@pytest.mark.parametrize("comes", [(None,), (False,), (True, False)])
def test_no_file_is_left_where_shards_have_met_or_have_not(
    tmp_path: Path, comes: tuple[bool | None, ...]
) -> None:
    def meet() -> None:
        leader, _, _ = led(tmp_path, comes=comes)
        leader.form_again(MemoryError())

    with pytest.raises(RuntimeError, match="nobody came"):
        meet()
    assert not list(tmp_path.iterdir())


def test_real_shards_leave_no_file_and_have_no_more_memory_than_there_is(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "model")
    with Groups(2) as groups, groups.led(tmp_path / "model") as leader:
        together(tmp_path / "model", leader)
        assert 0 < leader.least(1 << 62, 0) < 1 << 62  # the follower has less
        assert not list(Path(groups.runtime_dir).glob("rendezvous-*"))


def test_memory_is_measured_with_the_others(tmp_path: Path) -> None:
    leader, crew, _ = led(tmp_path)
    assert leader.least(100, 7) == 99
    leader.make_cache(5)
    assert crew.sent == [Measure(7), MakeCache(5)]
    assert leader.followers == [17]


def test_a_group_that_waits_on_is_lost_with_its_step(tmp_path: Path) -> None:
    leader, _, group = led(tmp_path, can_form_again=False)
    with pytest.raises(GroupLostError, match="in one of the shards: too large"):
        leader.form_again(MemoryError("too large"))
    assert group.events == ["form"]


def leading(directory: Path) -> tuple[LeadingModel, torch.Tensor, Any, Any]:
    """One whose last pass has given six rows, and those."""
    leader, crew, group = led(directory)
    hidden = torch.randn(6, 10, dtype=torch.bfloat16)
    one: Any = leader.lead(SimpleNamespace(shares_prefixes=True, logits=lambda rows: rows))
    one._hidden = hidden
    return one, hidden, crew, group


@pytest.mark.parametrize(("first", "end"), [(0, 6), (0, 1), (2, 5), (5, 6), (3, 6)])
def test_followers_are_told_which_rows_are_meant(tmp_path: Path, first: int, end: int) -> None:
    model, hidden, crew, group = leading(tmp_path)
    assert torch.equal(model.logits(hidden[first:end]), hidden[first:end])
    assert crew.sent == [Logits(first, end - first)]
    assert group.events == ["form"]
    assert model.shares_prefixes


@pytest.mark.parametrize(("first", "end"), [(0, 1), (1, 3), (4, 6), (5, 6), (0, 6)])
def test_rows_of_something_else_are_refused(tmp_path: Path, first: int, end: int) -> None:
    """Before anybody is told of them: the third and the fourth are the last pass's here."""
    model, hidden, crew, _ = leading(tmp_path)
    model._hidden = hidden[2:4]
    with pytest.raises(ValueError, match="no rows of the last forward pass"):
        model.logits(hidden[first:end])
    assert not crew.sent


@pytest.mark.parametrize("what", ["forward", "logits"])
def test_what_fails_forms_the_group_again(tmp_path: Path, what: str) -> None:
    model, hidden, _, group = leading(tmp_path)

    def fail(*given: Any) -> torch.Tensor:
        raise MemoryError("too large")

    setattr(model._model, what, fail)
    numbers = torch.ones(1, dtype=torch.int64)
    tensors = (numbers, numbers, numbers, numbers.view(1, 1), numbers)
    inputs = StepInputs(
        *tensors, lengths_host=(1,), query_lengths_host=(1,), decode_sequences=0,
        logit_rows=numbers,
    )  # fmt: skip
    with pytest.raises(MemoryError, match="too large"):
        model.forward(inputs, None) if what == "forward" else model.logits(hidden)
    assert group.events == ["form", "give up", "form"]


def test_a_leader_that_ends_lets_the_others_end(tmp_path: Path) -> None:
    leader, crew, group = led(tmp_path)
    leader.close()
    assert crew.sent == [Leave()]
    assert group.events == ["form", "give up"]
