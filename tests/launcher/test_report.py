"""What --dry-run and env print."""

from launcher.arguments import parse_arguments
from launcher.limits import derive
from launcher.machine import Machine
from launcher.report import dry_run, environment_report
from launcher.resolve import Resolution, resolve


def resolution_of(*arguments: str, **environ: str) -> Resolution:
    resolution = resolve(parse_arguments(arguments).given, environ)
    derive(resolution, None, Machine(2))
    return resolution


def test_dry_run_says_what_and_why() -> None:
    flags = ("--api-key", "hush", "--max-input-tokens", "7", "--cuda-graphs", "1,8")
    found = resolution_of(*flags, MAX_TOTAL_TOKENS="auto")
    text = dry_run(found, ["directory /m"])
    rows = {
        line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if "  " in line
    }
    assert rows["max_input_tokens"] == ["7", "flag --max-input-tokens"]
    assert rows["max_total_tokens"] == ["2048", "derived: the model names no context"]
    assert rows["cuda_graphs"] == ["1,8", "flag --cuda-graphs"]
    assert rows["max_best_of"] == ["2", "default"]
    assert rows["worker_threads"] == ["2", "derived: 2 cores"]
    assert "set (hidden)" in text
    assert "hush" not in text
    assert "ngrok" not in text


def test_environment_report_hides_secrets() -> None:
    environ = {"API_KEY": "hush", "HF_TOKEN": "hush", "MODEL_ID": "m", "OTHER": "x"}
    environ |= {"HF_ENDPOINT": "http://me:hush@mirror/hub", "TGI_PROT": "hush"}
    text = environment_report(Machine(2, ("NVIDIA H200",)), environ)
    assert "hush" not in text
    assert "  API_KEY=set (hidden)\n" in text
    assert "  HF_ENDPOINT=http://(hidden)@mirror/hub\n" in text
    assert "  HF_TOKEN=set (hidden)\n  MODEL_ID=m" in text
    assert "  TGI_PROT is not a setting of this server" in text
    assert "OTHER" not in text
    assert "GPUs: NVIDIA H200" in text
    assert "torch 2" in text
    assert environment_report(Machine(2, ()), {}).endswith("\nenvironment: none")
