"""A step's inputs survive the way to another process."""

import pytest
import torch

from common.sockets import TO_FOLLOWER, encode
from worker.inputs import StepInputs
from worker.parallel.steps import assembled, inputs_of, message_of
from worker.transfers import HostTransfers


@pytest.mark.parametrize("adapters", [(), (0, -1, 2)])
def test_there_and_back(adapters: tuple[int, ...]) -> None:
    numbers = iter(range(1000))

    def some(*shape: int) -> torch.Tensor:
        count = torch.Size(shape).numel()
        return torch.tensor([next(numbers) for _ in range(count)]).view(shape)

    inputs = StepInputs(
        token_ids=some(7),
        positions=some(7),
        slots=some(7) + 2**30,
        block_tables=some(3, 5),
        lengths=torch.tensor([4, 9, 70]),
        lengths_host=(4, 9, 70),
        query_lengths_host=(1, 1, 5),
        decode_sequences=2,
        logit_rows=torch.tensor([0, 1, 6]),
        adapters_host=adapters,
    )
    frame = encode(message_of(assembled(inputs)))
    assert len(frame) < 4 * (3 * 7 + 15 + 2 * 3 + 3 + len(adapters)) + 42
    got = inputs_of(TO_FOLLOWER.decode(frame), HostTransfers())  # type: ignore[arg-type]
    for name in StepInputs.__slots__:
        sent, received = getattr(inputs, name), getattr(got, name)
        if isinstance(sent, torch.Tensor):
            assert received.dtype == torch.int64
            assert torch.equal(sent, received)
        else:
            assert sent == received
