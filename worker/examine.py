"""``python -m worker.examine``: answers a ``Question`` with an ``Examination``; starts nothing.

A process of its own, run by ``millrace doctor``. Checks a model as the worker would (architecture,
every tensor's name, shape and type) without reading its weights, but for one matrix at most.
"""

import math
import sys

import msgspec

from common.errors import StartupError
from common.examination import Examination, ModelFacts, Question
from common.messages import BLOCK_TOKENS
from common.settings import Settings
from worker.memory import available_bytes


def examine(question: Question) -> Examination:
    """Everything that can be found out. Never raises for what is wrong with machine or model."""
    try:
        import torch

        from worker.devices import DTYPES, computes_natively
    except (ImportError, OSError) as error:
        return Examination(problem=f"torch cannot be imported: {error}")
    facts, problem = None, ""
    try:
        room = available_bytes()
    except StartupError:
        room = 0
    if question.model_dir is not None:
        try:
            facts = _model(question, question.model_dir)
        except StartupError as error:
            problem = str(error)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Examination(
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        gpus=[torch.cuda.get_device_name(number) for number in range(gpus)],
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        native_types=[name for name, dtype in DTYPES.items() if computes_natively(dtype)],
        available_bytes=room,
        model=facts,
        problem=problem,
    )


def _model(question: Question, model_dir: str) -> ModelFacts:
    """Raises StartupError as a start would."""
    from worker.devices import choose, choose_kv_dtype, computes_natively
    from worker.kernels.select import Choices
    from worker.loading import load_model
    from worker.sharding import Sharding
    from worker.watermark import count_green

    settings = Settings(
        model_id="", model_dir=model_dir, dtype=question.dtype, device=question.device
    )
    device, dtype = choose(settings)
    model = load_model(
        model_dir,
        device=device,
        dtype=dtype,
        rope_scaling=question.rope_scaling,
        rope_factor=question.rope_factor,
        weights=False,
        sharding=Sharding(0, question.num_shard),
        choices=Choices(kv_dtype=choose_kv_dtype(question.kv_cache_dtype)),
        quantize=question.quantize,
    )
    configuration = model.configuration
    count_green(configuration.vocab_size, question.watermark_gamma)
    weights_bytes = model.weights_bytes
    if weights_bytes is None:
        numbers = sum(math.prod(slot.shape) for slot in model.slots())
        weights_bytes = numbers * configuration.dtype.itemsize
    return ModelFacts(
        architecture=configuration.architecture,
        dtype=str(configuration.dtype).removeprefix("torch."),
        device=device.type,
        native=device.type != "cpu" or computes_natively(configuration.dtype),
        weights_bytes=weights_bytes,
        quantization=model.quantization,
        kv_bytes_per_token=model.block_bytes // BLOCK_TOKENS,
    )


def main() -> None:
    """Read, examine, write."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(msgspec.json.encode(examine(question)))


if __name__ == "__main__":
    main()
