"""On a GPU: kernels that start before those before them have ended read what these have written."""

import pytest
import torch

from worker.kernels.reference.attention import AttentionShape
from worker.kernels.triton import activation, decode, linear, norm, store
from worker.kernels.triton.launch import early
from worker.transfers import CudaTransfers

LAYERS, REPLAYS = 24, 10
SHAPE = AttentionShape(16, 4, 64, 0.125)
HIDDEN, INNER = SHAPE.heads * SHAPE.head_dim, 3072


class Layers:
    """The kernels of decoding steps, one after another, each of which reads what the last wrote."""

    def __init__(self, rows, device):
        def drawn(*size):
            return (torch.randn(size, device=device) * size[-1] ** -0.5).to(torch.bfloat16)

        self.wide = drawn((SHAPE.heads + 2 * SHAPE.kv_heads) * SHAPE.head_dim, HIDDEN)
        self.back = drawn(HIDDEN, HIDDEN)
        self.gates, self.down = drawn(2 * INNER, HIDDEN), drawn(HIDDEN, INNER)
        self.norms = norm.prepare_norm(drawn(HIDDEN).abs() * HIDDEN**0.5, 1e-5)
        self.x = drawn(rows, HIDDEN) * HIDDEN**0.5
        self.cache = torch.randn((2, 1 + 40 * rows, SHAPE.kv_heads, 16, 64), device=device)
        self.cache = self.cache.to(torch.bfloat16)
        self.tables = 1 + torch.arange(40 * rows, device=device).view(rows, 40)
        self.lengths = torch.full((rows,), 600, device=device)
        self.slots = self.tables[:, 37] * 16 + 7
        self.splitting = decode.choose_splitting(rows, SHAPE.kv_heads, 132)

    def run(self):
        """[rows, hidden] of all layers."""
        residual, x = self.x.clone(), torch.zeros_like(self.x)
        rows = len(x)
        for number in range(LAYERS):
            x = self.norms.add_norm(x, residual)
            qkv = linear.multiply(self.wide, None, x).view(rows, -1, SHAPE.head_dim)
            queries = store.store(qkv, self.slots, self.cache, shape=SHAPE, angles=None, norms=None)
            attended = torch.empty_like(x)
            decode.attend_decoding(
                queries, self.cache, self.tables, self.lengths, attended, shape=SHAPE, window=0,
                splitting=self.splitting,
                parts=decode.make_parts(rows, SHAPE, self.splitting, x.device),
            )  # fmt: skip
            x = self.norms.add_norm(linear.multiply(self.back, None, attended), residual)
            if number % 2:
                x = linear.multiply(self.gates, None, x, gated=True)
            else:  # as more rows have it
                x = activation.silu_and_multiply(linear.multiply(self.gates, None, x))
            x = linear.multiply(self.down, None, x)
        return x


@pytest.mark.parametrize("rows", [1, 5, 16])
def test_overlapping_changes_nothing(rows, monkeypatch):
    """Bit for bit what the same kernels give where each waits for the one before to end."""
    torch.manual_seed(0)
    device = torch.empty(0, device="cuda").device
    if not early(device)["EARLY"]:
        pytest.skip("kernels of this GPU do not overlap")
    layers = Layers(rows, device)
    with torch.inference_mode():
        with monkeypatch.context() as patched:
            for module in (activation, decode, linear, norm, store):
                patched.setattr(module, "early", lambda device: {"EARLY": False})
            wanted = layers.run()
        assert wanted.isfinite().all()
        assert torch.equal(layers.run(), wanted)
        replay = CudaTransfers(device).record(lambda _: layers.run(), ())
        for _ in range(REPLAYS):
            assert torch.equal(replay(()), wanted)
