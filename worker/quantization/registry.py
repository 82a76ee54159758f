"""Every format of quantized checkpoints, and every quantization at load, by name."""

from collections.abc import Callable, Mapping
from typing import Any

from worker.quantization.at_load import BY_NAME, AtLoad
from worker.quantization.awq import Awq
from worker.quantization.bitsandbytes import Bitsandbytes
from worker.quantization.compressed_tensors import CompressedTensors
from worker.quantization.float8 import Float8
from worker.quantization.format import Format
from worker.quantization.gptq import Gptq
from worker.quantization.mxfp4 import Mxfp4

FORMATS: dict[str, Callable[[Mapping[str, Any]], Format]] = {
    "gptq": Gptq,
    "awq": Awq,
    "fp8": Float8,
    "fbgemm_fp8": Float8,
    "compressed-tensors": CompressedTensors,
    "bitsandbytes": Bitsandbytes,
    "mxfp4": Mxfp4,
}
"""By ``quant_method`` of a checkpoint's quantization_config, which they are made of."""
AT_LOAD: dict[str, AtLoad] = BY_NAME
"""By name of ``--quantize``."""
