"""The pipeline around the fake worker, as real processes: what is measured is what clients get."""

from bench.pipeline import check, request
from bench.processes import Pipeline
from bench.stream_client import Client

TOKENS = 8
REQUESTS = 6


def test_the_fake_worker_answers_through_scheduler_and_front_end():
    with Pipeline(frontends=1, step_ms=0.0, blocks=500) as pipeline:
        client = Client(pipeline.port, 2, lambda number: request("native", number, TOKENS))
        load = client.run(events=TOKENS, requests=REQUESTS)
        client.close()
        check(load, "native", TOKENS)
        assert set(pipeline.pids()) == {"scheduler", "worker", "front end 0"}
    assert (load.requests, load.events) == (REQUESTS, REQUESTS * TOKENS)
