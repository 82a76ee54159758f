"""Start a server on the random model, load it, print the table and keep the figures.

usage: python -m bench.run [--size 135m] [--server-arguments "--worker-threads 1"]

Prompts of 64 words and 64 new tokens at 1, 8 and 32 streams, then four prompts of 1,000 words for
prompt processing, then one of them again for the prefix cache.
"""

import argparse
import json
import platform
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench import load

HERE = Path(__file__).resolve().parent
START_LIMIT_S = 300.0
LONG_WORDS = 1000


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def model_of(size: str) -> Path:
    """The random model, written at first use."""
    path = HERE / "models" / size
    if not (path / "tokenizer_config.json").exists():
        subprocess.run([sys.executable, "-m", "bench.random_llama", path, size], check=True)
    return path


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> float:
    """Seconds until ``/health`` answers 200."""
    began = time.monotonic()
    while time.monotonic() - began < START_LIMIT_S:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return time.monotonic() - began
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start")


def figures(url: str, *arguments: str) -> dict[str, Any]:
    """One run of the load generator."""
    found = load.run(load.read_arguments(["--url", url, *arguments]))
    if found["fail"]:
        sys.exit(f"requests failed: {found['failures']}")
    return found


def prompt_tokens(url: str) -> float:
    """Sum of the prompt lengths that the server has seen."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        found = re.search(rb"^tgi_request_input_length_sum (\S+)", answer.read(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def measure(url: str) -> dict[str, Any]:
    """All figures of a running server."""
    streams = {}
    for count in (1, 8, 32):
        number = max(4, 3 * count)
        streams[count] = figures(url, "-c", str(count), "-n", str(number))
    long = ["--prompt-words", str(LONG_WORDS), "--max-tokens", "1", "--seed", "9"]
    before = prompt_tokens(url)
    prefill = figures(url, "-c", "4", "-n", "4", "--warmup", "0", *long)
    processed = prompt_tokens(url) - before
    again = ["--shared-prefix", str(LONG_WORDS), "--prompt-words", "8", "--max-tokens", "1"]
    cold = figures(url, "-c", "1", "-n", "1", "--warmup", "0", *again)
    warm = figures(url, "-c", "1", "-n", "4", "--warmup", "0", *again)
    return {
        "streams": streams,
        "prefill_tok_s": round(processed / prefill["wall_s"], 1),
        "ttft_ms_cold": cold["ttft_ms_p50"],
        "ttft_ms_cached_prefix": warm["ttft_ms_p50"],
    }


def table(results: dict[str, Any]) -> str:
    """The figures as the README has them."""
    lines = [
        "| streams | tok/s | TTFT p50, ms | gap p50, ms | gap p99, ms |",
        "|---|---|---|---|---|",
    ]
    for count, found in results["streams"].items():
        cells = [found[key] for key in ("tok_s", "ttft_ms_p50", "itl_ms_p50", "itl_ms_p99")]
        lines.append(f"| {count} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    lines.append(
        f"\nPrompt processing: {results['prefill_tok_s']} tok/s (4 prompts of {LONG_WORDS} words). "
        f"First token of a prompt of {LONG_WORDS} words: {results['ttft_ms_cold']:.0f} ms, "
        f"with its prefix cached {results['ttft_ms_cached_prefix']:.0f} ms. "
        f"Ready after {results['ready_s']} s."
    )
    return "\n".join(lines)


def main() -> None:
    """Read the flags, start, measure, stop, print."""
    parser = argparse.ArgumentParser(description="speed of a server on the random model")
    parser.add_argument("--size", default="135m")
    parser.add_argument("--server-arguments", default="")
    options = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "launcher", "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", "0", "--model-id", str(model_of(options.size))]
    command += ["--max-input-tokens", "4096", "--max-total-tokens", "8192"]
    command += shlex.split(options.server_arguments)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            ready_s = round(wait_until_ready(process, url), 1)
            results = {**measure(url), "ready_s": ready_s, "size": options.size}
        finally:
            process.send_signal(signal.SIGTERM)
    results |= {"machine": platform.machine(), "arguments": options.server_arguments}
    kept = HERE / "results" / f"{options.size}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
