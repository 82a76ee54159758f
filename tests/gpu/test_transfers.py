"""On a GPU: transfers while it is busy, and programs that are recorded. Nothing is compiled."""

import numpy as np
import pytest
import torch

from worker.transfers import CudaTransfers, send

GPU = torch.device("cuda")
MANY = 60
SHORT_CYCLES, LONG_CYCLES = 50_000_000, 2_000_000_000
"""About 25 ms and one second."""


@pytest.fixture
def transfers():
    torch.empty(1, pin_memory=True)  # the first one waits for the device
    return CudaTransfers(GPU)


def test_uploads_do_not_overwrite_each_other(transfers):
    """All are packed before the device has read the first."""
    torch.cuda._sleep(SHORT_CYCLES)
    wanted, sent = [], []
    for number in range(MANY):
        arrays = [np.full(1 + 40 * number, number), np.arange(6).reshape(2, 3) + number]
        wanted += [array.copy() for array in arrays]
        sent += transfers.upload(arrays)
        sent.append(send(torch.full((9,), number), GPU))
        wanted.append(np.full(9, number))
    for got, array in zip(sent, wanted, strict=True):
        assert got.device.type == "cuda"
        assert np.array_equal(got.cpu().numpy(), array)


def test_downloads_are_what_was_there(transfers):
    torch.cuda._sleep(SHORT_CYCLES)
    values = torch.zeros(1000, device=GPU)
    downloads = []
    for number in range(MANY):
        values.fill_(number)
        downloads.append(transfers.download(values))
        values.fill_(-1)
    assert all((download.read() == number).all() for number, download in enumerate(downloads))


def test_reading_waits_for_nothing_later(transfers):
    values = torch.ones(1000, device=GPU)
    download = transfers.download(values)
    torch.cuda._sleep(LONG_CYCLES)
    values.fill_(2)
    assert (download.read() == 1).all()
    assert not torch.cuda.current_stream().query(), "what was launched later has ended before"


def test_neither_way_waits(transfers, no_synchronisation):
    values = torch.ones(1000, device=GPU)
    with no_synchronisation:
        (sent,) = transfers.upload([np.arange(1000)])
        values += sent
        download = transfers.download(values)
    assert torch.equal(download.read(), torch.arange(1000) + 1.0)


@torch.inference_mode()
def test_programs_are_recorded_and_replayed_in_any_order(transfers):
    """They share their memory, and each reads what is there when it is replayed.

    In inference mode, as the engine records: see ``test_attention``.
    """
    weight, state = torch.eye(64, device=GPU) * 2, torch.zeros((8, 64), device=GPU)

    def program_of(rows):
        return lambda bounds: state[:rows] @ weight + bounds[0]

    torch.cuda._sleep(SHORT_CYCLES)
    state.fill_(1)  # a recording begins behind what has been launched
    replays = {rows: transfers.record(program_of(rows), (5,) * rows) for rows in (8, 4, 1)}
    for number, rows in enumerate((1, 8, 4, 4, 1, 8)):
        state.fill_(number)
        download = transfers.download(replays[rows]((3,) * rows))
        state.fill_(-1)
        assert torch.equal(download.read(), torch.full((rows, 64), 2.0 * number + 5))
