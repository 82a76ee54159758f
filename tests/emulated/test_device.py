"""The emulated device itself: what it computes, that it is late, and what it forbids."""

import pytest
import torch


def test_operators_compute_what_they_do_on_a_cpu():
    x = torch.randn(6, 5)
    there = x.to("cuda")
    assert torch.equal((there @ there.T).relu().cpu(), (x @ x.T).relu())
    assert there[there > 0].tolist() == x[x > 0].tolist()
    there[1:3] += 2
    x[1:3] += 2
    assert torch.equal(there.sort(dim=1).values.cpu(), x.sort(dim=1).values)


def test_who_reads_too_early_reads_what_was_there_before():
    host = torch.zeros(3, pin_memory=True)
    host.copy_(torch.ones(3, device="cuda"), non_blocking=True)
    assert host.tolist() == [0, 0, 0]
    torch.cuda.synchronize()
    assert host.tolist() == [1, 1, 1]


def test_who_overwrites_too_early_sends_what_comes_later():
    host = torch.zeros(3, pin_memory=True)
    there = host.to("cuda", non_blocking=True)
    host.fill_(7)
    assert there.tolist() == [7, 7, 7]


def test_a_stream_is_not_behind_another_by_itself():
    side, values = torch.cuda.Stream(), torch.zeros(3, device="cuda")
    torch.cuda.synchronize()
    values.fill_(1)
    with torch.cuda.stream(side):
        copied = values.clone()
        assert copied.tolist() == [0, 0, 0]
        side.wait_stream(torch.cuda.default_stream())
        assert values.clone().tolist() == [1, 1, 1]


def test_what_is_not_written_is_no_number():
    assert torch.empty(4, device="cuda").isnan().all()


def _recorded(program):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = program()
    return graph, result


def test_a_graph_reads_what_is_there_when_it_is_replayed():
    values = torch.ones(4, device="cuda")
    graph, result = _recorded(lambda: values * 2)
    values.fill_(5)
    assert result.isnan().all()
    graph.replay()
    assert result.tolist() == [10] * 4


@pytest.mark.parametrize(
    "waits",
    [lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x.cpu(), lambda x: x[x > 0]],
)
def test_nothing_waits_while_a_graph_is_recorded(waits):
    values = torch.ones(4, device="cuda")
    with pytest.raises((RuntimeError, torch.AcceleratorError)):
        _recorded(lambda: waits(values))
