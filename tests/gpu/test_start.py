"""On a GPU: a worker started as users start it keeps, and replays, what it has recorded."""

from common.settings import Settings
from tests.gpu.engines import PROMPTS, generated, make_engine, tiny_model
from worker.runner import HostRunner
from worker.start import start

SIZES = [1, 2, 4, 8]
TOKENS = 40


def test_a_worker_starts_and_says_what_one_step_at_a_time_says(tmp_path):
    model = tiny_model(tmp_path)
    settings = Settings(
        model_id="m", model_dir=str(tmp_path), runtime_dir=str(tmp_path), dtype="float32",
        device="cuda", max_batch_size=16, max_total_tokens=256, max_input_tokens=200,
        max_batch_total_tokens=6000, max_batch_prefill_tokens=256, cuda_graphs=SIZES,
    )  # fmt: skip
    engine = start(settings)
    expected = generated(make_engine(model, HostRunner), PROMPTS, TOKENS)
    assert generated(engine, PROMPTS, TOKENS) == expected
    assert sorted(size for size, _ in engine._runner._steps._decode._recorded) == SIZES
    engine.close()
