"""MXFP4: experts of gpt-oss, whole, in shards, and what is refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import StartupError
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.quantization.writers import WEIGHTS, change_config, mxfp4
from tests.worker.tiny import write_tiny
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.sharding import Sharding

CPU = torch.device("cpu")
PROMPT = list(b"once upon a time")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A checkpoint as gpt-oss is published, and its twin: the same numbers, plain."""
    base = tmp_path_factory.mktemp("gpt_oss")
    write_tiny(base / "source", FAMILIES["gpt_oss"](), seed=2)
    coded, plain = mxfp4(load_file(base / "source" / WEIGHTS))
    for name, tensors in (("coded", coded), ("plain", plain)):
        shutil.copytree(base / "source", base / name)
        save_file(tensors, base / name / WEIGHTS)
    change_config(base / "coded", quantization_config={"quant_method": "mxfp4"})
    return base / "coded", base / "plain"


def load(directory, **options):
    return load_model(str(directory), device=CPU, dtype=torch.float32, **options)


def logits(model):
    paged = Paged(model)
    return paged.step([(paged.start(PROMPT), len(PROMPT))], rows="all")


def changed(pair, tmp_path, change):
    """The coded checkpoint, one of whose tensors is another."""
    shutil.copytree(pair[0], tmp_path / "changed")
    tensors = load_file(pair[0] / WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / "changed" / WEIGHTS)
    return tmp_path / "changed"


def test_equals_its_twin(pair):
    found, wanted = (load(directory) for directory in pair)
    assert (logits(found) - logits(wanted)).abs().max() < 1e-3
    assert Paged(found).generate(PROMPT, 12) == Paged(wanted).generate(PROMPT, 12)
    coded = [matrix for matrix in matrices(found) if matrix.is_coded]
    assert len(coded) == 2 * 2 * 4  # layers, both matrices, experts
    assert found.quantization == "mxfp4 in groups of 32"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_shard_has_its_part(pair, rank):
    """Of gates and ups its pairs, of what follows its inputs."""
    shards = [load(directory, sharding=Sharding(rank, 2)) for directory in pair]
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    mixtures = [shard.model.layers[1].mlp for shard in shards]
    found, wanted = (mixture._mix(x, mixture.gate(x)) for mixture in mixtures)
    assert (found - wanted).abs().max() < 1e-4
    assert mixtures[0].experts[0].gate_up_proj.is_coded


def test_shapes_and_scales_that_make_no_sense(pair, tmp_path):
    key = "model.layers.1.mlp.experts.down_proj"

    def shorter(tensors):
        tensors[f"{key}_scales"] = tensors[f"{key}_scales"][:, :, :1].contiguous()

    with pytest.raises(StartupError, match=rf"{key}_scales .* \[4, 64, 1\], and not \[4, 64, 3\]"):
        load(changed(pair, tmp_path / "a", shorter))

    def endless(tensors):
        tensors[f"{key}_scales"][2, 3, 1] = 255

    with pytest.raises(StartupError, match=r"down_proj is quantized, and of its scales not all"):
        load(changed(pair, tmp_path / "b", endless))

    def gone(tensors):
        del tensors[f"{key}_scales"]

    with pytest.raises(StartupError, match=rf"lacks the tensor {key}_scales,"):
        load(changed(pair, tmp_path / "c", gone))

    def neither(tensors):
        del tensors[f"{key}_blocks"], tensors[f"{key}_scales"], tensors[f"{key}_bias"]

    with pytest.raises(StartupError, match=rf"lacks the tensor\(s\) {key}, {key}_bias$"):
        load(changed(pair, tmp_path / "d", neither))

    def fewer(tensors):
        tensors[f"{key}_blocks"] = tensors[f"{key}_blocks"][:3].contiguous()

    with pytest.raises(StartupError, match=r"\[3, 64, 3, 16\], and not \[4, 64, 3, 16\]"):
        load(changed(pair, tmp_path / "f", fewer))

    def others(tensors):
        for name in ("blocks", "scales"):
            codes = tensors[f"{key}_{name}"]
            tensors[f"{key}_{name}"] = codes.reshape(2, 128, *codes.shape[2:])

    with pytest.raises(StartupError, match=r"\[2, 128, 3, 16\], and not \[4, 64, 3, 16\]"):
        load(changed(pair, tmp_path / "g", others))

    def flat(tensors):
        tensors[f"{key}_blocks"] = tensors[f"{key}_blocks"].flatten()

    with pytest.raises(StartupError, match=r"\[12288\], and not \[4, 64, 3, 16\]"):
        load(changed(pair, tmp_path / "e", flat))


def test_plain_weights_that_config_json_calls_codes(pair, tmp_path):
    shutil.copytree(pair[1], tmp_path / "plain")
    change_config(tmp_path / "plain", quantization_config={"quant_method": "mxfp4"})
    with pytest.raises(StartupError, match=r"says that weights are mxfp4 .* checkpoint are plain"):
        load(tmp_path / "plain")


def test_sizes_that_groups_do_not_divide(tmp_path):
    config = FAMILIES["gpt_oss"]()
    config.intermediate_size = 40
    write_tiny(tmp_path, config, seed=2)
    change_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    tensors = load_file(tmp_path / WEIGHTS)
    key = "model.layers.0.mlp.experts.down_proj"
    tensors[f"{key}_blocks"] = torch.zeros(4, 64, 1, 16, dtype=torch.uint8)
    del tensors[key]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(StartupError, match="its 40 inputs are no multiple of 32"):
        load(tmp_path)
