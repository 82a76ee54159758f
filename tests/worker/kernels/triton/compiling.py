"""``make gpu-compile``, or this file as a program [few]: compiles every kernel for sm_90.

No GPU is needed: kernels are called as ever, with tensors of the CPU, under a driver that names a
Hopper GPU; nothing is launched. A table of what ptxas and the disassembler say goes to the output.
Attention is compiled for sm_89, too, whose blocks share less than half as much memory.
Runs in a process of its own, in which Triton's interpreter is off. Fails where a kernel does not
compile, does not fit into shared memory, spills more than a few registers, waits for each tile of
keys or weights before it asks for the next, or is launched early and reads or writes before it has
waited for the kernels before it. PYTHONPATH may name another Triton: 3.7 and 3.9
pass, 3.6 spills 64 bytes in chunks on sm_89.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from worker.kernels.low_rank import LowRank
from worker.kernels.mixture import Expert, Routing, holding
from worker.kernels.reference import linear as reference
from worker.kernels.reference.activation import clamp_and_multiply
from worker.kernels.reference.attention import AttentionShape
from worker.kernels.reference.gather import DecodeRows
from worker.kernels.reference.penalties import Penalties
from worker.kernels.reference.quantized import E2M1_LEVELS, WHOLE_LEVELS, Coding, Quantized
from worker.kernels.triton import launch
from worker.kernels.triton.activation import silu_and_multiply
from worker.kernels.triton.chunks import attend_chunks, choose_stages
from worker.kernels.triton.decode import attend_decoding, choose_splitting, make_parts
from worker.kernels.triton.draw import draw
from worker.kernels.triton.filters import top_k, top_p
from worker.kernels.triton.gather import gather_inputs
from worker.kernels.triton.linear import multiply
from worker.kernels.triton.low_rank import TritonLowRank
from worker.kernels.triton.mixture import mix
from worker.kernels.triton.norm import TritonNorm, prepare_norm
from worker.kernels.triton.penalties import penalize_
from worker.kernels.triton.quantized import pack_codes
from worker.kernels.triton.store import store
from worker.quantization.at_load import NF4

_HOPPER, _ADA = 90, 89
_SHARED_BYTES = {_HOPPER: 227 << 10, _ADA: 99 << 10}
"""Of a block."""
_SPILLED_BYTES = 16
"""Of a thread: so few are reloaded from L1 unnoticed beside what attention reads."""
_AHEAD = 4
"""Buffers of what lives by reading weights."""
_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_LLAMA = AttentionShape(32, 8, 128, 0.1)
_SHAPES = {
    "llama": _LLAMA,
    "capped": replace(_LLAMA, cap=30.0),
    "smollm": AttentionShape(9, 3, 64, 0.1),
    "phi": AttentionShape(32, 32, 96, 0.1),
    "gemma": AttentionShape(8, 4, 256, 0.1),
}
_KINDS = (torch.bfloat16, torch.float16, torch.float32)
_FEW = [("llama", torch.bfloat16, torch.float8_e4m3fn)]
_ALL = [
    *[(name, torch.bfloat16, torch.bfloat16) for name in _SHAPES],
    *[(name, torch.float32, torch.float32) for name in ("llama", "smollm", "gemma")],
    ("llama", torch.float16, torch.float16),
    ("llama", torch.bfloat16, torch.float8_e4m3fn),
    ("llama", torch.bfloat16, torch.float8_e5m2),
    ("llama", torch.float32, torch.float8_e4m3fn),
]
"""Shape, the model's dtype, the cache's."""
_CODED = [
    (Coding.INTEGER, torch.bfloat16, 4096, 1),
    (Coding.FLOAT8, torch.bfloat16, 128, 1),
    (Coding.NIBBLE, torch.bfloat16, 128, 1),
    (Coding.NIBBLE, torch.bfloat16, 128, 32),
    (Coding.NIBBLE, torch.bfloat16, 128, 512),
    (Coding.NIBBLE, torch.float16, 64, 1),
    (Coding.NIBBLE, torch.float32, 128, 1),
]
"""Coding, the model's dtype, inputs of a group, rows."""
_MIXTURES = [
    (None, torch.bfloat16, 1),
    (None, torch.bfloat16, 512),
    (None, torch.bfloat16, 4096),
    (None, torch.float16, 1),
    (None, torch.float32, 1),
    (None, torch.float32, 4096),
    (Coding.FLOAT8, torch.bfloat16, 1),
    (Coding.FLOAT8, torch.bfloat16, 512),
    (Coding.NIBBLE, torch.bfloat16, 1),
    (Coding.NIBBLE, torch.bfloat16, 512),
    (Coding.NIBBLE, torch.float32, 1),
    (Coding.NIBBLE, torch.float32, 512),
]
"""Coding or none, the model's dtype, tokens."""


class Driver:
    """What the compiler asks of one."""

    def __init__(self):
        self.capability = _HOPPER

    def get_current_device(self):
        return self.capability  # Triton remembers the target of each device

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)


class Compiled:
    """Collects what is compiled while kernels are called."""

    def __init__(self):
        self.found = []
        self.case = ""
        self.driver = Driver()
        driver.set_active(self.driver)
        launch.may_overlap = lambda device: self.driver.capability >= _HOPPER
        run = JITFunction.run
        JITFunction.run = lambda kernel, *args, grid, warmup, **options: self._keep(
            kernel, run(kernel, *args, grid=grid, warmup=True, **options)
        )

    def on(self, capability):
        """From now on."""
        self.driver.capability = capability
        launch.early.cache_clear()

    def _keep(self, kernel, compiled):
        self.found.append((self.driver.capability, self.case, kernel, compiled))


def attention(kept, cases):
    for name, dtype, kv_dtype in cases:
        kept.case = f"{name} {short(dtype)} over {short(kv_dtype)}"
        one(_SHAPES[name], dtype, kv_dtype, window=0, sequences=4)


def sinks(kept):
    """As gpt-oss has them."""
    kept.case = "64 heads, sinks, window, bfloat16"
    shape = AttentionShape(64, 8, 64, 0.1)
    one(shape, torch.bfloat16, torch.bfloat16, window=128, sequences=4, with_sinks=True)


def unsplit(kept):
    kept.case = "llama bfloat16, window, unsplit"
    one(_LLAMA, torch.bfloat16, torch.bfloat16, window=4096, sequences=256)


def less_shared_memory(kept):
    kept.on(_ADA)
    wide = AttentionShape(8, 4, 256, 0.1, 50.0)
    for name, shape in {"llama": _LLAMA, "capped and wide": wide}.items():
        kept.case = f"{name} bfloat16, window, on sm_{_ADA}"
        one(shape, torch.bfloat16, torch.bfloat16, window=4096, sequences=4, on=_ADA)
    kept.on(_HOPPER)


def one(shape, dtype, kv_dtype, *, window, sequences, on=_HOPPER, with_sinks=False):
    row = shape.heads + 2 * shape.kv_heads
    qkv = torch.empty((sequences, row, shape.head_dim), dtype=dtype)
    cache = torch.empty((2, 64, shape.kv_heads, 16, shape.head_dim), dtype=kv_dtype)
    whole = torch.zeros((sequences, 32), dtype=torch.int64)
    angles = torch.empty((sequences, 2, shape.head_dim), dtype=dtype)
    norm = TritonNorm(torch.relu, torch.add, angles[0, 0], 1e-5)
    turn = angles[:, :1], angles[:, 1:]
    store(qkv, whole[:, 0], cache, shape=shape, angles=turn, norms=(norm, norm))
    if kv_dtype == dtype:
        store(qkv, whole[:, 0], cache, shape=shape, angles=turn, norms=None)
        store(qkv, whole[:, 0], cache, shape=shape, angles=None, norms=None)
    output = qkv.new_empty((sequences, shape.heads * shape.head_dim))
    logits = torch.empty(shape.heads) if with_sinks else None
    splitting = choose_splitting(sequences, shape.kv_heads, 132)
    attend_decoding(
        qkv[:, : shape.heads], cache, whole, whole[:, 0].contiguous(), output, shape=shape,
        window=window, splitting=splitting,
        parts=make_parts(sequences, shape, splitting, qkv.device), sinks=logits,
    )  # fmt: skip
    tiles = torch.zeros((7, 4), dtype=torch.int32)
    attend_chunks(
        qkv[:, : shape.heads], cache, whole, tiles, output, shape=shape, window=window,
        stages=choose_stages(shape, _SHARED_BYTES[on]), sinks=logits,
    )  # fmt: skip


def pointwise(kept):
    for dtype in _KINDS:
        kept.case = f"4096 wide {short(dtype)}"
        x = torch.empty((4, 4096), dtype=dtype)
        operations = prepare_norm(x[0].clone(), 1e-5)
        operations.norm(x)
        operations.add_norm(x, x.clone())
        silu_and_multiply(x)


def quantized(kept):
    for coding, dtype, group, rows in _CODED:
        columns = 2048 if coding is Coding.NIBBLE else 4096
        codes = torch.empty((4096, columns), dtype=torch.uint8)
        scales = torch.empty((4096, 4096 // group))
        offsets = scales if coding is Coding.NIBBLE else None
        for kind, levels in (("whole", WHOLE_LEVELS), ("table", NF4)):
            if kind == "table" and coding is not Coding.NIBBLE:
                continue  # others have no levels
            kept.case = f"4096 x 4096 {coding.name.lower()} {kind}, {rows} rows {short(dtype)}"
            weight = Quantized(coding, codes, scales, offsets, torch.tensor(levels))
            pack_codes(weight, None)(torch.empty((rows, 4096), dtype=dtype))


def few_rows(kept, dtypes):
    for dtype in dtypes:
        kept.case = f"4096 x 4096, few rows {short(dtype)}"
        weight, x = torch.empty((4096, 4096), dtype=dtype), torch.empty((4, 4096), dtype=dtype)
        multiply(weight, None, x)
        multiply(weight, weight[0], x, gated=True)
        multiply(weight, None, x, dtype=torch.float32)


def low_rank(kept):
    for dtype in _KINDS:
        kept.case = f"4096 x 4096, rank 16 {short(dtype)}"
        kernel, x = TritonLowRank(), torch.empty((4, 4096), dtype=dtype)
        add = kernel.pack([LowRank(x.new_empty((16, 4096)), x.new_empty((4096, 16)))])
        add(x.clone(), x, kernel.plan(np.zeros(4, dtype=np.int64), x.device))


def mixtures(kept, cases):
    """128 experts, 8 of which are chosen, as in Qwen3."""
    pack = holding(reference.pack)
    gated = reference.activated(pack, silu_and_multiply)
    for coding, dtype, tokens in cases:
        kind = "plain" if coding is None else coding.name.lower()
        kept.case = f"128 experts 768 wide, {kind}, {tokens} tokens {short(dtype)}"
        first, second = (weights(coding, shape, dtype) for shape in ((1536, 2048), (2048, 768)))
        expert = Expert(gated(first, None), pack(second, None))
        logits = torch.empty((tokens, 128), dtype=dtype)
        x = torch.empty((tokens, 2048), dtype=dtype)
        mix([expert] * 128, Routing(8, normalized=True))(x, logits)


def gpt_oss(kept):
    """Its experts as published: with biases and clamped gates, codes in groups of 32."""
    pack = holding(reference.pack)
    gated = reference.activated(pack, clamp_and_multiply)
    levels = torch.tensor(E2M1_LEVELS)
    for tokens in (1, 512):
        kept.case = f"32 experts 2880 wide, mxfp4, {tokens} tokens bfloat16"
        parts = []
        for outputs in (5760, 2880):
            codes = torch.empty((outputs, 1440), dtype=torch.uint8)
            weight = Quantized(Coding.NIBBLE, codes, torch.empty((outputs, 90)), levels=levels)
            parts.append((weight, torch.empty(outputs, dtype=torch.bfloat16)))
        expert = Expert(gated(*parts[0]), pack(*parts[1]))
        x = torch.empty((tokens, 2880), dtype=torch.bfloat16)
        mix([expert] * 32, Routing(4, normalized=True))(x, x[:, :32].contiguous())


def weights(coding, shape, dtype):
    if coding is None:
        return torch.empty(shape, dtype=dtype)
    outputs, inputs = shape
    columns = inputs // 2 if coding is Coding.NIBBLE else inputs
    codes = torch.empty((outputs, columns), dtype=torch.uint8)
    scales = torch.empty((outputs, inputs // 128))
    if coding is not Coding.NIBBLE:
        return Quantized(coding, codes, scales)
    return Quantized(coding, codes, scales, scales, torch.tensor(WHOLE_LEVELS))


def sampling(kept):
    kept.case = "128256 tokens"
    logits = torch.empty((4, 128256))
    row, whole = torch.empty(4), torch.zeros(4, dtype=torch.int64)
    draw(logits, row, whole, whole)
    counts = torch.zeros((4, 128256), dtype=torch.int32)
    asked = Penalties(None, row, row, row, row, whole, whole)
    penalize_(logits, asked, counts, counts, whole)
    top_p(logits, row)
    top_k(logits, whole, 9)
    rows = DecodeRows(whole, whole, whole)
    gather_inputs(rows, whole, whole, torch.zeros((4, 32), dtype=torch.int64))


def short(dtype):
    return str(dtype).removeprefix("torch.")


def inspected(compiled):
    """Registers, bytes on the stack, and counts of instructions, from the binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(_TOOL), "--dump-resource-usage", "--dump-sass", file.name]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = (int(re.search(rf"{word}:(\d+)", told)[1]) for word in ("REG", "STACK"))
    names = ("HGMMA", "HMMA", "LDGSTS", "STL")
    counts = {name: len(re.findall(rf"\b{name}\b", told)) for name in names}
    wide = len(re.findall(r"\b(?:LDGSTS|LDG)[.\w]*\.128\b", told))
    return registers, stack, counts, wide


def buffers(compiled):
    """Of the tiles that are on their way while another is used: what the pipeline has come to."""
    found = re.findall(r"memdesc<(\d+)x\d+x\d+x\w+, \S+ #smem, mutable>", compiled.asm["ttgir"])
    return max(map(int, found), default=0)


def waits_first(compiled):
    """Whether nothing but a prefetch lies before the wait for earlier kernels."""
    accesses = r"griddepcontrol\.wait|\b(?:ld|st|red|atom)\.(?:\w+\.)*global|\bcp\.async"
    first = re.search(accesses, compiled.asm["ptx"])
    return first is not None and first[0] == "griddepcontrol.wait"


def main(arguments):
    kept = Compiled()
    few = "few" in arguments
    attention(kept, _FEW if few else _ALL)
    few_rows(kept, _KINDS[:1] if few else _KINDS[:2])
    mixtures(kept, _MIXTURES[:1] if few else _MIXTURES)
    if not few:
        gpt_oss(kept)
        sinks(kept)
        unsplit(kept)
        less_shared_memory(kept)
        pointwise(kept)
        quantized(kept)
        low_rank(kept)
    sampling(kept)
    wrong = []
    columns = ("registers", "stack", "shared", "buffers", "HGMMA", "HMMA", "LDGSTS")
    print(f"| kernel | for | {' | '.join(columns)} | 16-byte loads |")
    print("|---" * (len(columns) + 3) + "|")
    for capability, case, kernel, compiled in kept.found:
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"
        registers, stack, counts, wide = inspected(compiled)
        shared, tiles = compiled.metadata.shared, buffers(compiled)
        print(
            f"| {name} | {case} | {registers} | {stack} | {shared} | {tiles} | {counts['HGMMA']}"
            f" | {counts['HMMA']} | {counts['LDGSTS']} | {wide} |"
        )
        if shared > _SHARED_BYTES[capability]:
            wrong.append(f"{name} for {case} wants {shared} bytes of shared memory")
        if counts["STL"] and stack > _SPILLED_BYTES:
            wrong.append(f"{name} for {case} spills {stack} bytes of registers")
        if compiled.metadata.launch_pdl and not waits_first(compiled):
            wrong.append(f"{name} for {case} does not wait for what it reads")
        if capability != _HOPPER:
            continue
        if name.endswith("._attend") and "float32" not in case and tiles < 2:
            wrong.append(f"{name} for {case} has one buffer: it waits for every tile")
        coded_few = any(f"whole, {rows} rows" in case for rows in (1, 32))
        of_one_token = "experts._multiply" in name and ", 1 tokens" in case
        reads_few = name.endswith("._linear_of_few") or coded_few or of_one_token
        if reads_few and "float32" not in case and tiles < _AHEAD:
            wrong.append(f"{name} for {case} has {tiles} buffers: too little is under way")
        if name == "filters._keep" and not counts["LDGSTS"]:
            wrong.append(f"{name} for {case} waits for every block")
        if name == "chunks._attend" and "float32" not in case and not counts["HGMMA"]:
            wrong.append(f"{name} for {case} does not use Hopper's matrix instructions")
    print(f"{len(kept.found)} kernels compiled with Triton {triton.__version__}")
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
