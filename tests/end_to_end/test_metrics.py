"""The metrics of a running server agree with what its clients saw."""

from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.harness import Server, together


def test_counts_equal_what_clients_counted(server: Server) -> None:
    before = server.metrics()
    answers = together(10, lambda i: server.generate("Hello", max_new_tokens=i + 1, details=True))
    assert server.post("/generate", {"inputs": ""}).status == 422
    tokens = sum(answer["details"]["generated_tokens"] for answer in answers)

    def gained(name: str) -> float:
        return server.metrics().get(name, 0) - before.get(name, 0)

    server.until(lambda: gained("tgi_request_success") == 10)
    assert gained("tgi_request_count") == 11
    assert gained('tgi_request_failure{err="validation"}') == 1
    assert gained("tgi_request_generated_tokens_sum") == tokens
    assert gained("tgi_request_generated_tokens_count") == 10
    assert gained("tgi_request_duration_count") == 10
    assert gained("tgi_request_duration_seconds_count") == 10
    assert gained("tgi_request_queue_duration_count") == 10
    assert gained('tgi_batch_inference_count{method="prefill"}') >= 1
    assert gained('tgi_batch_inference_count{method="decode"}') >= 1


def test_both_ports_serve_parsable_text(server: Server) -> None:
    scraped = server.get("/metrics")
    assert scraped.headers["content-type"].startswith("text/plain")
    families = {f.name for f in text_string_to_metric_families(scraped.body.decode())}
    assert "tgi_queue_size" in families
    other = Server(server.process, server.prometheus_port, 0)
    names = {line.split(" ")[2] for line in other.get("/metrics").body.decode().splitlines()
             if line.startswith("# TYPE")}  # fmt: skip
    assert {"tgi_request_count", "tgi_request_success", "tgi_batch_current_size"} <= names
