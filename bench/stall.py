"""How long running streams wait while long prompts are read: ``python -m bench.stall``.

Starts a server on the random model, lets some streams run, and sends prompts of the longest length
one after another meanwhile. Prints the streams' gaps and the prompts' times to the first token,
once for each ``--max-stall-ms``; 0 is what it would be without.
"""

import argparse
import asyncio
import signal
import statistics
import subprocess
import sys
from typing import Any

import aiohttp

from bench import load
from bench.run import free_port, model_of, wait_until_ready


async def run(url: str, streams: int, tokens: int, words: int, prompts: int) -> dict[str, Any]:
    """The load; milliseconds."""
    short = load.read_arguments(["--url", url, "--max-tokens", str(tokens)])
    long = load.read_arguments(["--url", url, "--max-tokens", "1"])
    timeout = aiohttp.ClientTimeout(total=load.LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await load.one(session, long, "warm")
        running = [
            asyncio.create_task(load.one(session, short, f"{n} " + "import " * 15))
            for n in range(streams)
        ]
        await asyncio.sleep(2.0)
        first_s = []
        for number in range(prompts):
            outcome = await load.one(session, long, f"{number} " + "class token " * (words // 2))
            if outcome.failure:
                sys.exit(outcome.failure)
            first_s.append(outcome.first_s)
        beside = sum(not task.done() for task in running)
        outcomes = await asyncio.gather(*running)
    gaps = [gap for outcome in outcomes for gap in outcome.gaps_s]
    return {
        "streams_still_running": beside,
        "gap_ms_p50": load.quantile_ms(gaps, 0.5),
        "gap_ms_p99": load.quantile_ms(gaps, 0.99),
        "gap_ms_worst": load.quantile_ms(gaps, 1.0),
        "prompt_ttft_ms": round(1e3 * statistics.fmean(first_s)),
    }


def main() -> None:
    """Read the flags, start, measure, stop, print."""
    parser = argparse.ArgumentParser(description="gaps of streams beside long prompts")
    parser.add_argument("--size", default="135m")
    parser.add_argument("--model", default="", help="a model directory instead")
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--words", type=int, default=3000)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--max-stall-ms", type=int, nargs="+", default=[0, 200])
    options = parser.parse_args()
    model = options.model or str(model_of(options.size))
    for stall_ms in options.max_stall_ms:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "launcher", "--hostname", "127.0.0.1"]
        command += ["--port", str(port), "--prometheus-port", "0", "--model-id", model]
        command += ["--max-input-tokens", "3500", "--max-total-tokens", "4096"]
        command += ["--max-stall-ms", str(stall_ms)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until_ready(process, url)
                found = asyncio.run(
                    run(url, options.streams, options.tokens, options.words, options.prompts)
                )
            finally:
                process.send_signal(signal.SIGTERM)
        print(f"--max-stall-ms {stall_ms}: {found}", flush=True)


if __name__ == "__main__":
    main()
