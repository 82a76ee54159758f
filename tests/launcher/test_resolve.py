"""Where values come from: precedence, spelling, service links, statuses, notes."""

import pytest

from common.errors import StartupError
from common.option import AUTO
from common.options import BUILTIN_MODEL, NO_EFFECT, NOT_YET, OPTIONS
from launcher.arguments import parse_arguments
from launcher.resolve import Resolution, UsageError, hub_token, resolve, service_links


def resolved(*arguments: str, **environ: str) -> Resolution:
    return resolve(parse_arguments(arguments).given, environ)


def notes(resolution: Resolution) -> str:
    return "\n".join(f"{note.level}: {note.text}" for note in resolution.notes)


@pytest.mark.parametrize(
    ("arguments", "environ", "value", "source"),
    [
        ((), {}, 3000, "default"),
        ((), {"AIP_HTTP_PORT": "4"}, 4, "environment AIP_HTTP_PORT"),
        ((), {"PORT": "3", "AIP_HTTP_PORT": "4"}, 3, "environment PORT"),
        ((), {"TGI_PORT": "2", "PORT": "3"}, 2, "environment TGI_PORT"),
        (("--port", "1"), {"TGI_PORT": "2", "PORT": "3"}, 1, "flag --port"),
        (("-p", "1"), {}, 1, "flag -p"),
        (("-p1",), {}, 1, "flag -p"),
        (("--port=1",), {}, 1, "flag --port"),
        (("--port", "1", "--port", "5"), {}, 5, "flag --port"),
        ((), {"PORT": "", "TGI_PORT": " "}, 3000, "default"),
        ((), {"TGI_PORT": "tcp://10.0.0.1:80", "PORT": "3"}, 3, "environment PORT"),
        ((), {"PORT": "tcp://10.0.0.1:80"}, 3000, "default"),
    ],
)
def test_precedence(arguments, environ, value, source) -> None:
    found = resolved(*arguments, **environ).values["port"]
    assert (found.value, found.source) == (value, source)


@pytest.mark.parametrize(
    ("name", "environ", "value"),
    [
        ("json_output", {"JSON_OUTPUT": "true"}, True),
        ("json_output", {"JSON_OUTPUT": "false"}, False),
        ("prefix_caching", {"PREFIX_CACHING": "0"}, False),
        ("max_input_tokens", {"MAX_INPUT_LENGTH": "9"}, 9),
        ("max_input_tokens", {"MAX_INPUT_LENGTH": "9", "MAX_INPUT_TOKENS": "9"}, 9),
        (
            "cors_allow_origin",
            {"CORS_ALLOW_ORIGIN": "http://a, http://b"},
            ["http://a", "http://b"],
        ),
        ("log_level", {"LOG_LEVEL": "info,text_generation_router=debug"}, "INFO"),
        ("log_level", {"LOG_LEVEL": "warn"}, "WARNING"),
        ("max_total_tokens", {"MAX_TOTAL_TOKENS": "auto"}, AUTO),
        ("model_id", {"HF_MODEL_ID": "a/b"}, "a/b"),
        ("num_shard", {"SM_NUM_GPUS": "4"}, 4),
        ("model_id", {}, BUILTIN_MODEL),
        ("waiting_served_ratio", {"WAITING_SERVED_RATIO": "1.2"}, 1.2),
    ],
)
def test_environment_values(name, environ, value) -> None:
    assert resolved(**environ)[name] == value


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--json-output",), "json_output", True),
        (("--no-prefix-caching",), "prefix_caching", False),
        (("--prefix-caching",), "prefix_caching", True),
        (("--max-input-length", "9"), "max_input_tokens", 9),
        (("--cors-allow-origin", "a", "--cors-allow-origin", "b"), "cors_allow_origin", ["a", "b"]),
        (("--sharded", "false"), "sharded", False),
        (("-g", "5", "-e"), "graceful_termination_timeout", 5),
    ],
)
def test_flags(arguments, name, value) -> None:
    assert resolved(*arguments)[name] == value


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (("--prt", "5"), {}, ["--prt", "did you mean --port?"]),
        (("--port",), {}, ["--port needs a value"]),
        (("--port", "--env"), {}, ["--port needs a value"]),
        (("--port", "x"), {}, ["--port", "'x' must be a whole number"]),
        (("--port", "70000"), {}, ["--port", "between 1 and 65535"]),
        (("--port", ""), {}, ["--port is empty"]),
        (("--no-prefix-caching=1",), {}, ["takes no value"]),
        (("--json-output=perhaps",), {}, ["must be true or false"]),
        (("--max-total-tokens", "many"), {}, ["whole number, or auto"]),
        (("--dtype", "int3"), {}, ["--dtype", "bfloat16"]),
        (("--cuda-memory-fraction", "2"), {}, ["at most 1"]),
        (("--watermark-gamma", "1"), {}, ["below 1"]),
        ((), {"WATERMARK_DELTA": "1e30"}, ["at most 100"]),
        (("--watermark-delta", "1e-30"), {}, ["at least 0.00001"]),
        (("--rope-factor", "nan"), {}, ["must be a number"]),
        (("--max-batch-size", "0"), {}, ["at least 1"]),
        (("--validation-workers", "0"), {}, ["between 1 and 1024"]),
        (("--num-shard", "0"), {}, ["between 1 and 1024"]),
        (("--max-input-tokens", "9", "--max-input-length", "9"), {}, ["two names of one setting"]),
        (("bake",), {}, ["'bake' belongs to no flag"]),
        (("org/name",), {}, ["'org/name'", "--model-id"]),
        (("-port", "80"), {}, ["-port is not a flag", "did you mean --port?"]),
        (("-port=80",), {}, ["-port is not a flag", "did you mean --port?"]),
        (("--env", "loose"), {}, ["'loose' belongs to no flag", "--env takes no value"]),
        (("--env", "org/name"), {}, ["'org/name'", "--model-id"]),
        ((), {"MAX_BEST_OF": "two"}, ["MAX_BEST_OF", "whole number"]),
        ((), {"TGI_ENV": "production"}, ["TGI_ENV", "true or false"]),
    ],
)
def test_what_cannot_be_understood(arguments, environ, words) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(*arguments, **environ)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_contradicting_names_in_the_environment() -> None:
    with pytest.raises(StartupError, match="contradict each other"):
        resolved(MAX_INPUT_TOKENS="1", MAX_INPUT_LENGTH="2")


@pytest.mark.parametrize("option", NOT_YET, ids=lambda option: option.name)
def test_what_is_not_there_yet_is_refused_by_its_flag(option) -> None:
    given = [option.flags[0]]
    words = {"N": "3", "X": "0.5", "true|false": "true"}
    if not option.is_switch:
        given.append(words.get(option.kind.word, "some"))
    with pytest.raises(StartupError, match=option.flags[0]) as caught:
        resolved(*given)
    assert not isinstance(caught.value, UsageError)
    text = words.get(option.kind.word, "true" if option.is_switch else "some")
    with pytest.raises(StartupError, match=option.flags[0]):
        resolved(**{option.environment_names[-1]: text})


def test_that_no_remote_code_is_run_is_a_warning() -> None:
    for found in (resolved("--trust-remote-code"), resolved(HF_MODEL_TRUST_REMOTE_CODE="1")):
        ((level, text),) = [(note.level, note.text) for note in found.notes]
        assert level == "warning"
        assert "code from model repositories is never run" in text


def test_harmless_values_of_settings_without_use_pass() -> None:
    assert resolved(TRUST_REMOTE_CODE="false", QUANTIZE="").notes == []


def test_speculation_is_asked_for_as_in_tgi() -> None:
    for asked in (
        resolved("--speculate", "3"),
        resolved(SPECULATE="3"),
        resolved(TGI_SPECULATE="3"),
    ):
        assert asked["speculate"] == 3
        assert asked.notes == []
    assert resolved()["speculate"] == 0
    with pytest.raises(StartupError, match=r"--speculate.*between 0 and 32"):
        resolved("--speculate", "33")


@pytest.mark.parametrize("option", NO_EFFECT, ids=lambda option: option.name)
def test_what_has_no_effect_says_so(option) -> None:
    values = {"usage_stats": "off"}
    if option.flag:
        given = [option.flags[0]] + ([] if option.is_switch else [values.get(option.name, "1")])
        text = notes(resolved(*given))
        assert option.flags[0] in text
    else:
        text = notes(resolved(**{option.environment_names[0]: "1"}))
    assert "has no effect" in text


def test_faults_are_injected_only_by_a_value_that_says_for_tests() -> None:
    value = "test-only:exit@1,2"
    assert resolved(MILLRACE_DEBUG_FAULTS=value)["debug_faults"] == value
    assert resolved()["debug_faults"] is None
    for name in ("DEBUG_FAULTS", "TGI_DEBUG_FAULTS"):
        assert resolved(**{name: value})["debug_faults"] is None
    with pytest.raises(UsageError, match=r"MILLRACE_DEBUG_FAULTS.* must begin with test-only:"):
        resolved(MILLRACE_DEBUG_FAULTS="exit@1,2")


def test_service_links_are_skipped_and_named() -> None:
    links = {
        "TGI_PORT": "tcp://10.0.0.1:80",
        "TGI_SERVICE_HOST": "10.0.0.1",
        "TGI_SERVICE_PORT": "80",
        "TGI_SERVICE_PORT_HTTP": "80",
        "TGI_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TGI_PORT_80_TCP_PROTO": "tcp",
        "TGI_PORT_80_TCP_PORT": "80",
        "TGI_PORT_80_TCP_ADDR": "10.0.0.1",
        "TGI_CANARY_SERVICE_HOST": "10.0.0.2",
        "PROMETHEUS_PORT": "tcp://10.0.0.3:9090",
        "PORT": "udp://10.0.0.1:80",
    }
    resolution = resolved(**links)
    assert (resolution["port"], resolution["prometheus_port"]) == (3000, 9000)
    assert service_links(links) == sorted(links)
    assert [note.level for note in resolution.notes] == ["info"]
    assert all(name in resolution.notes[0].text for name in links)


def test_unknown_names_are_warned_about() -> None:
    resolution = resolved(TGI_MAX_TOTAL_TOKEN="5", TGI_QWERTY="1", SOMETHING="else")
    text = notes(resolution)
    assert "warning: TGI_MAX_TOTAL_TOKEN is not a setting" in text
    assert "did you mean TGI_MAX_TOTAL_TOKENS?" in text
    assert "TGI_QWERTY" in text
    assert "SOMETHING" not in text


@pytest.mark.parametrize(
    ("arguments", "environ", "value", "level"),
    [
        ((), {}, "0.0.0.0", None),
        (("--hostname", "::1"), {}, "::1", None),
        (("--hostname", "localhost"), {}, "127.0.0.1", None),
        (("--hostname", "my-machine"), {}, "0.0.0.0", "warning"),
        ((), {"HOSTNAME": "pod-7f9"}, "0.0.0.0", "info"),
        ((), {"HOSTNAME": "10.0.0.4"}, "10.0.0.4", None),
    ],
)
def test_hostname(arguments, environ, value, level) -> None:
    resolution = resolved(*arguments, **environ)
    assert resolution["hostname"] == value
    assert [note.level for note in resolution.notes] == ([level] if level else [])
    if level:
        assert "no IP address" in resolution.values["hostname"].source


def test_a_name_that_belongs_to_somebody_else() -> None:
    resolution = resolved(ENV="production")
    assert resolution["env"] is False
    assert "ENV is set to something else" in notes(resolution)


def test_secrets_do_not_appear_in_complaints() -> None:
    for arguments, environ in [
        (("--ngrok-authtoken", "hush"), {}),
        ((), {"NGROK_AUTHTOKEN": "hush"}),
    ]:
        with pytest.raises(StartupError) as caught:
            resolved(*arguments, **environ)
        assert "hush" not in str(caught.value)


def test_hub_token() -> None:
    assert hub_token({"HF_API_TOKEN": "c", "HUGGING_FACE_HUB_TOKEN": "b"}) == "b"
    assert hub_token({"HF_TOKEN": " a "}) == "a"
    assert hub_token({"HF_TOKEN": ""}) is None


def test_help_and_version_are_recognised_anywhere() -> None:
    assert parse_arguments(["--port", "1", "--help"]).help
    assert parse_arguments(["-V"]).version
    assert [item.option for item in parse_arguments(["--api-key", "x"]).secrets] == ["api_key"]
    assert OPTIONS["port"].flags == ("--port", "-p")
