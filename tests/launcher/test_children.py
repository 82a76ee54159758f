"""What started processes find in their environment."""

import pytest

from launcher.children import WAITING, child_environment


def test_secrets_and_what_steers_by_chance_are_left_out():
    kept = child_environment({"HF_TOKEN": "hf_1", "WEB_CONCURRENCY": "9", "HOME": "/home/me"})
    assert "HF_TOKEN" not in kept
    assert "WEB_CONCURRENCY" not in kept
    assert kept["HOME"] == "/home/me"
    assert kept["HF_HUB_OFFLINE"] == "1"


def test_computing_threads_do_not_look_for_work_for_long():
    assert child_environment({}).items() >= WAITING.items()


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_whoever_says_how_threads_wait_has_decided(own):
    kept = child_environment(own)
    assert kept.items() >= own.items()
    assert len(own.keys() & WAITING.keys()) == len(kept.keys() & WAITING.keys())
