"""Writes quantized checkpoints of each public layout, and their twins: the same numbers, plain.

Every writer takes one matrix [outputs, inputs] and a generator, rounds it to codes in its own way,
and gives the tensors that stand for it, by what follows the matrix's name, and the matrix that they
mean (float32). It shares no code with what reads them.
"""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def quantized(
    source, target, write, config, *, skip=("lm_head", "embed", "norm"), seed=0, turn=False
):
    """A checkpoint and its twin, ``target``'s ``coded`` and ``plain``, from a plain one.

    ``turn``: plain matrices are [inputs, outputs].
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source / WEIGHTS)
    coded, plain = {}, dict(tensors)
    for key, tensor in tensors.items():
        if tensor.dim() != 2 or any(word in key for word in skip):
            coded[key] = tensor
            continue
        stem = key.removesuffix(".weight")
        parts, meant = write(tensor.T.contiguous() if turn else tensor, generator)
        meant = meant.T if turn else meant
        coded |= {f"{stem}.{name}": part.contiguous() for name, part in parts.items()}
        plain[key] = meant.contiguous()
    for name, found in (("coded", coded), ("plain", plain)):
        (target / name).mkdir(parents=True)
        for path in source.glob("*.json"):
            shutil.copy(path, target / name)
        save_file(found, target / name / WEIGHTS)
    change_config(target / "coded", quantization_config=config)
    return target / "coded", target / "plain"


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- integers -----------------------------------------------------------------------------------


def integers(matrix, bits, group, *, symmetric):
    """Codes from 0 on, scales and zeros [outputs, groups], and what they mean."""
    inputs = matrix.shape[1]
    group = group or inputs
    which = torch.arange(inputs) // group
    count = int(which[-1]) + 1
    most = (1 << bits) - 1
    low = torch.stack([matrix[:, which == g].amin(1) for g in range(count)], 1)
    high = torch.stack([matrix[:, which == g].amax(1) for g in range(count)], 1)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scales = ((high - low) / most).half().float()
    zeros = torch.full_like(scales, (most + 1) // 2)
    if not symmetric:
        zeros = (-low / scales).round().clamp(0, most)
    codes = (matrix / scales[:, which] + zeros[:, which]).round().clamp(0, most)
    meant = (codes - zeros[:, which]) * scales[:, which]
    return codes.long(), scales, zeros.long(), meant


def words(codes, bits):
    """[rows, n] to int32 [rows, n · bits / 32], the first in the lowest bits."""
    each = 32 // bits
    rows = codes.reshape(len(codes), -1, each)
    total = sum(rows[:, :, i] << (bits * i) for i in range(each))
    return torch.where(total >= 1 << 31, total - (1 << 32), total).to(torch.int32)


def gptq(
    bits=4,
    group=32,
    *,
    symmetric=True,
    shuffled=False,
    version=1,
    said="checkpoint_format",
    biased=False,
):
    def write(matrix, generator):
        outputs, inputs = matrix.shape
        order = torch.randperm(inputs, generator=generator) if shuffled else torch.arange(inputs)
        codes, scales, zeros, meant = integers(matrix[:, order], bits, group, symmetric=symmetric)
        back = order.argsort()
        stored = (zeros - (1 if version == 1 else 0)) & ((1 << bits) - 1)
        groups = torch.arange(inputs) // (group or inputs)
        parts = {
            "qweight": words(codes[:, back], bits).T,
            "qzeros": words(stored.T.contiguous(), bits),
            "scales": scales.T.half(),
            "g_idx": groups[back].int(),
        }
        if biased:
            parts["bias"] = torch.zeros(outputs, dtype=torch.float16)
        return parts, meant[:, back]

    config = {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "sym": symmetric,
              "desc_act": shuffled}  # fmt: skip
    return write, config | ({said: "gptq_v2"} if version == 2 else {})


def awq(group=32):
    def write(matrix, generator):
        codes, scales, zeros, meant = integers(matrix, 4, group, symmetric=False)
        outputs_in_word = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])

        def packed(rows):
            mixed = rows.reshape(len(rows), -1, 8)[:, :, outputs_in_word]
            return words(mixed.reshape(rows.shape), 4)

        return {
            "qweight": packed(codes.T),
            "qzeros": packed(zeros.T),
            "scales": scales.T.half(),
        }, meant

    return write, {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True,
                   "version": "gemm", "modules_to_not_convert": None}  # fmt: skip


def packed(bits=4, group=32, *, symmetric=True, shuffled=False, zeros_packed=True):
    """compressed-tensors, pack-quantized."""

    def write(matrix, generator):
        inputs = matrix.shape[1]
        order = torch.randperm(inputs, generator=generator) if shuffled else torch.arange(inputs)
        codes, scales, zeros, meant = integers(matrix[:, order], bits, group, symmetric=symmetric)
        back = order.argsort()
        parts = {
            "weight_packed": words(codes[:, back], bits),
            "weight_scale": scales,
            "weight_shape": torch.tensor(matrix.shape),
        }
        if not zeros_packed:
            parts["weight_zero_point"] = (zeros - (1 << (bits - 1))).to(torch.int8)
        elif not symmetric:
            parts["weight_zero_point"] = words(zeros.T.contiguous(), bits).T
        if shuffled:
            parts["weight_g_idx"] = (torch.arange(inputs) // (group or inputs))[back].int()
        return parts, meant[:, back]

    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "group_size": group,
               "strategy": "group" if group else "channel"}  # fmt: skip
    return write, compressed("pack-quantized", weights)


def packed_by_matrix(bits=4):
    """The same with one scale and zero point of the whole matrix, which is never packed."""

    def write(matrix, generator):
        codes, scale, zero, meant = integers(matrix.view(1, -1), bits, None, symmetric=False)
        parts = {
            "weight_packed": words(codes.view(matrix.shape), bits),
            "weight_scale": scale.view(1),
            "weight_zero_point": (zero - (1 << (bits - 1))).view(1).to(torch.int8),
            "weight_shape": torch.tensor(matrix.shape),
        }
        return parts, meant.view(matrix.shape)

    weights = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "tensor"}
    return write, compressed("pack-quantized", weights)


def compressed(form, weights):
    return {
        "quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip


def int8(*, symmetric=True):
    """compressed-tensors, int-quantized, by output."""

    def write(matrix, generator):
        codes, scales, zeros, meant = integers(matrix, 8, None, symmetric=symmetric)
        parts = {"weight": (codes - 128).to(torch.int8), "weight_scale": scales}
        if not symmetric:
            parts["weight_zero_point"] = (zeros - 128).to(torch.int8)
        return parts, meant

    weights = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": "channel"}
    return write, compressed("int-quantized", weights)


def int8_blocks(block, said=None):
    """compressed-tensors, int-quantized, a scale for each block of outputs and inputs."""
    high, wide = block

    def write(matrix, generator):
        (rows, columns), padded = blocked(matrix, block)
        scales = padded.view(-1, high, padded.shape[1] // wide, wide).abs().amax(dim=(1, 3)) / 127
        whole = scales.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :columns]
        codes = (matrix / whole).round()
        return {"weight": codes.to(torch.int8), "weight_scale": scales}, codes * whole

    weights = {"num_bits": 8, "type": "int", "strategy": "block", "block_structure": said or block}
    return write, compressed("int-quantized", weights)


def blocked(matrix, block):
    """Its shape, and the matrix with zeros up to whole blocks."""
    (rows, columns), (high, wide) = matrix.shape, block
    padded = torch.zeros(-(-rows // high) * high, -(-columns // wide) * wide)
    padded[:rows, :columns] = matrix
    return (rows, columns), padded


# --- floats -------------------------------------------------------------------------------------


def float8(matrix, scales):
    codes = (matrix / scales).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, codes.float() * scales


def mxfp4(tensors):
    """Of a gpt-oss's tensors: those as published, and what they mean; experts alone are codes."""
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    coded, plain = {}, dict(tensors)
    for key, tensor in tensors.items():
        if not key.endswith(("experts.gate_up_proj", "experts.down_proj")):
            coded[key] = tensor
            continue
        upright = tensor.transpose(1, 2).float()
        groups = upright.reshape(*upright.shape[:2], -1, 32)
        exponents = (groups.abs().amax(-1) / 6).log2().ceil().clamp(-127, 127)
        wanted = groups / exponents.exp2()[..., None]
        which = (wanted.abs()[..., None] - sizes).abs().argmin(-1)
        meant = sizes[which] * wanted.sign() * exponents.exp2()[..., None]
        codes = (which + 8 * (wanted < 0)).to(torch.uint8)
        coded[f"{key}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).contiguous()
        coded[f"{key}_scales"] = (exponents + 127).to(torch.uint8)
        plain[key] = meant.reshape(upright.shape).transpose(1, 2).to(tensor.dtype).contiguous()
    return coded, plain


def fp8(by="tensor", block=None, *, said=True):
    def write(matrix, generator):
        if by == "block":
            high, wide = block
            (rows, columns), padded = blocked(matrix, block)
            blocks = padded.view(-1, high, padded.shape[1] // wide, wide)
            scales = blocks.abs().amax(dim=(1, 3)) / 448
            whole = scales.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :columns]
            codes, meant = float8(matrix, whole)
            return {"weight": codes, "weight_scale_inv": scales}, meant
        largest = matrix.abs().amax(1, keepdim=True) if by == "output" else matrix.abs().max()
        codes, meant = float8(matrix, largest / 448)
        scale = (largest / 448).float()
        return {"weight": codes, "weight_scale": scale, "input_scale": torch.tensor(0.5)}, meant

    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    return write, config | ({"weight_block_size": list(block)} if block and said else {})


def compressed_fp8(by="output", *, zeros=False):
    plain, _ = fp8(by)

    def write(matrix, generator):
        parts, meant = plain(matrix, generator)
        if zeros:
            parts["weight_zero_point"] = torch.zeros_like(parts["weight_scale"])
        return parts, meant

    strategy = "channel" if by == "output" else "tensor"
    return write, compressed(
        "float-quantized", {"num_bits": 8, "type": "float", "strategy": strategy}
    )


NF4 = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461,
       0.3379, 0.4407, 0.5626, 0.723, 1.0]  # fmt: skip


def nf4(block=64, *, nested=False):
    """bitsandbytes, 4 bits."""
    levels = torch.tensor(NF4)

    def write(matrix, generator):
        blocks = torch.zeros(-(-matrix.numel() // block), block)
        blocks.view(-1)[: matrix.numel()] = matrix.flatten()
        scales = blocks.abs().amax(1)
        state = {"quant_type": "nf4", "blocksize": block, "dtype": "float32",
                 "shape": list(matrix.shape)}  # fmt: skip
        parts = {}
        if nested:
            outer = torch.stack([part.sub(0.1).abs().max() for part in scales.split(256)])
            table = torch.linspace(-1, 1, 256)
            wide = outer.repeat_interleave(256)[: len(scales)]
            inner = ((scales - 0.1) / wide).sub(table[:, None]).abs().argmin(0)
            scales = table[inner] * wide + 0.1
            state |= {"nested_blocksize": 256, "nested_offset": 0.1, "nested_dtype": "float32"}
            parts = {"weight.absmax": inner.to(torch.uint8), "weight.nested_absmax": outer,
                     "weight.nested_quant_map": table}  # fmt: skip
        codes = (blocks / scales[:, None])[:, :, None].sub(levels).abs().argmin(-1)
        meant = (levels[codes] * scales[:, None]).flatten()[: matrix.numel()].view(matrix.shape)
        flat = codes.flatten()[: matrix.numel()].view(-1, 2)
        said = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        return {
            "weight": ((flat[:, 0] << 4) | flat[:, 1]).to(torch.uint8)[:, None],
            "weight.absmax": scales,
            "weight.quant_map": levels.clone(),
            "weight.quant_state.bitsandbytes__nf4": said,
        } | parts, meant

    return write, {"quant_method": "bitsandbytes", "load_in_4bit": True,
                   "bnb_4bit_quant_type": "nf4"}  # fmt: skip


def scb():
    """bitsandbytes, int8."""

    def write(matrix, generator):
        largest = matrix.abs().amax(1)
        codes = (matrix / largest[:, None] * 127).round()
        meant = codes * (largest / 127)[:, None]
        return {"weight": codes.to(torch.int8), "SCB": largest,
                "weight_format": torch.tensor(0, dtype=torch.uint8)}, meant  # fmt: skip

    return write, {"quant_method": "bitsandbytes", "load_in_8bit": True}
