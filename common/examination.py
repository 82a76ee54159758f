"""What ``millrace doctor`` asks processes that are not going to run, and what they answer.

The launcher starts ``python -m worker.examine``, writes a ``Question`` as JSON to its standard
input and reads an ``Examination`` as JSON from its standard output: only a worker may import torch.
``python -m frontend.examine`` answers a ``TextQuestion`` in the same way.
"""

import msgspec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the same names; without ``model_dir`` only the machine is looked at."""

    model_dir: str | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantize: str | None = None
    device: str = "auto"
    rope_scaling: str | None = None
    rope_factor: float | None = None
    num_shard: int = 1
    watermark_gamma: float = 0.5


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose every tensor is there and has the right shape."""

    architecture: str
    dtype: str
    """That it would be computed in, such as ``bfloat16``."""
    device: str
    """``cpu`` or ``cuda``."""
    native: bool
    """Whether the device multiplies this type itself; others are emulated, slowly."""
    weights_bytes: int
    """In ``dtype``, or as they are quantized."""
    quantization: str = ""
    """What quantized weights are, such as ``gptq, 4 bits in groups of 128``; empty if none are."""
    kv_bytes_per_token: int
    """Keys and values of all layers."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker found."""

    torch: str = ""
    """Version with build, such as ``2.13.0+cpu``; empty if it cannot be imported."""
    cuda: str | None = None
    """Version of CUDA that torch was built for."""
    gpus: list[str] = []
    """Names of the GPUs that torch can use."""
    cpu_capability: str = ""
    """The best instructions that torch's own kernels use, such as ``AVX2``."""
    native_types: list[str] = []
    """Types that this CPU multiplies itself."""
    available_bytes: int = 0
    """Memory that may still be taken: the machine's, or what control groups leave of it."""
    model: ModelFacts | None = None
    problem: str = ""
    """Why a worker could not start; empty if it could."""


class TextQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the same names."""

    model_dir: str
    tokenizer_config_path: str | None = None


class TextExamination(msgspec.Struct, frozen=True, kw_only=True):
    """What the front end found."""

    has_template: bool = False
    """Whether the model can chat."""
    problem: str = ""
    """Why a front end could not start; empty if it could."""
