"""The table of options: complete, without clashes, and the page made from it is current."""

import re
from pathlib import Path
from typing import Any

import pytest

from common.keys import MAX_KEYS
from common.option import AUTO, Option, collector
from common.options import HUB_TOKENS, NO_EFFECT, NOT_YET, OPTIONS, SECRET_NAMES
from common.settings import Settings
from launcher.reference import help_text, settings_page

ROOT = Path(__file__).resolve().parents[2]

_TGI = """
    model-id revision validation-workers sharded num-shard quantize speculate dtype kv-cache-dtype
    trust-remote-code max-concurrent-requests max-best-of max-stop-sequences max-top-n-tokens
    max-input-tokens max-input-length max-total-tokens waiting-served-ratio
    max-batch-prefill-tokens max-batch-total-tokens max-waiting-tokens max-batch-size cuda-graphs
    hostname port prometheus-port shard-uds-path master-addr master-port huggingface-hub-cache
    weights-cache-override disable-custom-kernels cuda-memory-fraction rope-scaling rope-factor
    json-output otlp-endpoint otlp-service-name cors-allow-origin api-key watermark-gamma
    watermark-delta ngrok ngrok-authtoken ngrok-edge tokenizer-config-path disable-grammar-support
    env max-client-batch-size lora-adapters usage-stats payload-limit enable-prefill-logprobs
    graceful-termination-timeout
"""
TGI_FLAGS = _TGI.split()
DERIVED = {
    "adapters",
    "kernel_cache",
    "model_dir",
    "model_sha",
    "model_pipeline_tag",
    "api_key_digests",
}
"""Settings that no option sets directly."""


@pytest.mark.parametrize("flag", [f"--{name}" for name in TGI_FLAGS] + ["-p", "-e", "-g"])
def test_every_flag_of_tgi_is_known(flag: str) -> None:
    assert any(flag in option.flags for option in OPTIONS.values())


@pytest.mark.parametrize("name", TGI_FLAGS)
def test_every_environment_name_of_tgi_is_known(name: str) -> None:
    plain = name.upper().replace("-", "_")
    (option,) = [option for option in OPTIONS.values() if f"--{name}" in option.flags]
    assert {plain, f"TGI_{plain}"} <= set(option.environment_names)


def test_no_name_means_two_things() -> None:
    names = [n for option in OPTIONS.values() for n in (*option.flags, *option.environment_names)]
    assert len(names) == len(set(names))


def test_our_names_come_first() -> None:
    assert OPTIONS["model_id"].environment_names == ("TGI_MODEL_ID", "MODEL_ID", "HF_MODEL_ID")
    assert OPTIONS["device"].environment_names == ("TGI_DEVICE",)


def test_every_setting_has_an_option_with_its_default() -> None:
    fields = set(Settings.__struct_fields__) - DERIVED
    assert fields <= set(OPTIONS)
    defaults = dict(
        zip(
            Settings.__struct_fields__[-len(Settings.__struct_defaults__) :],
            Settings.__struct_defaults__,
            strict=True,
        )
    )
    for name in fields & set(defaults):
        if OPTIONS[name].default not in (AUTO, None, []):
            assert OPTIONS[name].default == defaults[name], name


def test_every_option_is_used_refused_or_said_to_have_no_effect() -> None:
    of_the_launcher = {"revision", "huggingface_hub_cache", "dry_run", "env", "api_key", "sharded"}
    of_the_launcher |= {"lora_adapters"}
    used = set(Settings.__struct_fields__) | of_the_launcher
    rest = {option.name for option in (*NO_EFFECT, *NOT_YET)}
    assert {name for name in OPTIONS if name not in rest} <= used
    assert all(option.no_effect for option in NO_EFFECT)
    assert all(option.not_yet and option.default in option.harmless for option in NOT_YET)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_defaults_pass_their_own_checks(option: Option) -> None:
    if option.check and option.default not in (None, AUTO):
        assert option.check(option.default) == ""
    if option.default == AUTO:
        assert option.auto


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("port", [1, 65535], [0, 65536]),
        ("prometheus_port", [0, 65535], [-1, 65536]),
        ("cuda_graphs", [[0], [1, 4096]], [[0, 1], [4097]]),
        ("cuda_memory_fraction", [0.01, 1.0], [0.0, 1.01]),
        ("watermark_gamma", [0.01, 0.99], [0.0, 1.0]),
        ("watermark_delta", [0.00001, 100.0], [0.0, 101.0]),
        ("rope_factor", [0.1], [0.0]),
        ("vertex_predict_route", ["/predict"], ["predict", "/a{b}", "/a?b", "/a#b", "/a b"]),
        ("api_key", [["k"] * MAX_KEYS], [[], ["k"] * (MAX_KEYS + 1)]),
    ],
)
def test_what_is_taken_and_what_is_not(name: str, taken: list[Any], refused: list[Any]) -> None:
    check = OPTIONS[name].check
    assert check is not None
    assert [check(value) for value in taken] == [""] * len(taken)
    assert all(check(value).startswith("must ") for value in refused)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1,5", ""])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        OPTIONS["watermark_gamma"].kind.parse(text)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_words_are_sentences(option: Option) -> None:
    assert option.meaning.endswith(".")
    assert not (option.no_effect + option.not_yet + option.auto).endswith(".")


def test_secrets_are_known_by_all_their_names() -> None:
    assert {"API_KEY", "TGI_API_KEY", *HUB_TOKENS} <= SECRET_NAMES


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page(), "run make docs"


def test_help_and_page_name_every_flag() -> None:
    for text in (help_text(), settings_page()):
        words = set(re.findall(r"--?[a-z][a-z-]*", text))
        assert {flag for option in OPTIONS.values() for flag in option.flags} <= words
    assert "\n".join(line for line in help_text().splitlines() if len(line) > 100) == ""


@pytest.mark.parametrize(
    "endpoint",
    ["http://c:4317", "https://c/v1/traces", "c:4317", "http://[::1]:4317", "http://10.0.0.1"],
)
def test_collectors(endpoint: str) -> None:
    assert collector(endpoint) == ""


@pytest.mark.parametrize(
    "endpoint",
    ["collector", "ftp://c:4317", "http://", "http://c:port", "http://u:secret@c:1", "c d:1", ""],
)
def test_what_is_no_collector(endpoint: str) -> None:
    assert collector(endpoint).startswith("must be a URL such as")


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("6, 2-3,0", [6, 2, 3, 0])]
)
def test_lists_of_processors(text: str, cpus: list[int]) -> None:
    option = OPTIONS["worker_cpus"]
    assert option.kind.parse(text) == cpus
    assert option.check(cpus) == ""


@pytest.mark.parametrize("text", ["", "all", "1-", "-1", "0,,1", "1-2-3", "0x1", "²"])
def test_what_is_no_list_of_processors(text: str) -> None:
    with pytest.raises(ValueError, match="must be processors such as 0-3"):
        OPTIONS["worker_cpus"].kind.parse(text)


@pytest.mark.parametrize("text", ["3-1", "0-2,1", "0,0"])
def test_processors_are_named_once_each(text: str) -> None:
    option = OPTIONS["worker_cpus"]
    assert option.check(option.kind.parse(text)) == "must name processors once each"


@pytest.mark.parametrize("text", ["8192", "0-99999999999"])
def test_a_slip_does_not_fill_memory_with_processors(text: str) -> None:
    with pytest.raises(ValueError, match="must be processors below 8192"):
        OPTIONS["worker_cpus"].kind.parse(text)
