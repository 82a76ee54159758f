"""Where kernels may start before those before them have ended."""

import pytest
import torch

from worker.kernels.triton.launch import early


@pytest.mark.parametrize(
    ("kind", "capability", "hip", "overlaps"),
    [
        ("cuda", (9, 0), None, True), ("cuda", (12, 0), None, True), ("cuda", (8, 9), None, False),
        ("cuda", (9, 4), "6.3", False), ("cpu", None, None, False),
    ],
)  # fmt: skip
def test_kernels_overlap_from_hopper_on(kind, capability, hip, overlaps, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    launched = early.__wrapped__(torch.device(kind))
    assert launched["EARLY"] == overlaps
    assert launched.get("launch_pdl", False) == overlaps
