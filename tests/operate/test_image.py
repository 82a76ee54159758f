"""The image: built from the Dockerfile, started by its own entry point, asked with curl, stopped.

``make image-test``. What this cannot show without a container engine: port 80, Docker's own
networks, GPUs.
"""

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.operate.conftest import Note
from tests.operate.containers import Store
from tests.operate.running import Container, configuration, inside, run, run_read_only

pytestmark = pytest.mark.timeout(3600)  # the build is part of the first test
MOST_BYTES = 2_000_000_000
QUESTION = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}


def curl(container: Container, path: str, *arguments: str) -> str:
    """What curl prints; an HTTP error fails."""
    command = ["curl", "-fsS", "--max-time", "60", *arguments, f"{container.url}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def post(container: Container, path: str) -> str:
    header = "content-type: application/json"
    return curl(container, path, "-N", "-H", header, "-d", json.dumps(QUESTION))


def check_kernels(container: Container) -> None:
    """Those in C, as the build has made them: the image has no compiler."""
    said = "\n".join(container.log)
    assert re.search(r"worker-0 +C kernels for \w", said), said
    assert "compiling kernels" not in said


@pytest.fixture(scope="module")
def container(store: Store, image: str) -> Iterator[Container]:
    """Started as in TGI's published command, with its limits as flags."""
    with run(
        store, image, "--model-id", "millrace-builtin",
        "--max-input-tokens", "512", "--max-total-tokens", "1024",
    ) as started:  # fmt: skip
        yield started


def test_the_image_is_built_and_says_what_it_is(store: Store, image: str, note: Note) -> None:
    size_bytes = int(store.podman("image", "inspect", "--format", "{{.Size}}", image))
    note(f"the image for CPUs: {size_bytes / 1e9:.2f} GB, not compressed")
    assert size_bytes < MOST_BYTES
    config = configuration(store, image)
    assert config["User"] == "1000:0"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"80/tcp", "9000/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "healthcheck.sh"]
    assert {"PORT=80", "HUGGINGFACE_HUB_CACHE=/data"} <= set(config["Env"])


def test_nothing_of_the_build_is_left(store: Store, image: str) -> None:
    found = inside(store, image, "sh", "-c", "ls /etc/pip.conf /src /wheels /run/secrets; true")
    assert found.stdout == ""
    python = inside(store, image, "python", "-c", "import pip")
    assert "No module named 'pip'" in python.stderr


def test_it_answers(container: Container) -> None:
    assert json.loads(post(container, "/generate"))["generated_text"].strip()


def test_it_brings_the_kernels_of_this_processor(container: Container) -> None:
    check_kernels(container)


def test_it_streams(container: Container) -> None:
    events = [
        json.loads(line.removeprefix("data:"))
        for line in post(container, "/generate_stream").splitlines()
        if line.startswith("data:")
    ]
    assert len(events) == 8
    assert events[-1]["generated_text"].strip()


def test_health_and_metrics_are_served(container: Container) -> None:
    curl(container, "/health")
    assert "tgi_request_success 2.0" in curl(container, "/metrics")


def test_flags_reach_the_server(container: Container) -> None:
    told = json.loads(curl(container, "/info"))
    assert (told["max_input_tokens"], told["max_total_tokens"]) == (512, 1024)


def test_the_health_check_asks_where_the_running_server_listens(
    store: Store, image: str, container: Container
) -> None:
    write = 'mkdir /tmp/millrace-x && printf %s "$1" > /tmp/millrace-x/settings.json'
    script = f"{write} && healthcheck.sh"
    for hostname, answers in (("0.0.0.0", True), ("127.0.0.1", True), ("::2", False)):
        told = {"hostname": hostname, "prometheus_port": 1, "port": container.port}
        settings = json.dumps(told, separators=(",", ":"))
        assert (inside(store, image, "sh", "-c", script, "sh", settings).returncode == 0) == answers
    assert inside(store, image, "env", "PORT=9", "healthcheck.sh").returncode != 0


def test_sigterm_ends_it_with_status_0(container: Container) -> None:
    assert container.stop() == 0, container.tail()


def test_any_user_of_group_0_runs_it_as_process_1_on_a_read_only_root(
    store: Store, image: str
) -> None:
    """With weights in fewer bits, whose kernels are files of their own."""
    flags = ("--quantize", "bitsandbytes-nf4")
    with run_read_only(store, image, "12345:0", *flags) as container:
        check_kernels(container)
        assert json.loads(post(container, "/generate"))["generated_text"].strip()
        assert container.stop() == 0, container.tail()
