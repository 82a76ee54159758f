"""What started processes find in their environment."""

from launcher.children import child_environment


def test_secrets_and_what_steers_by_chance_are_left_out():
    kept = child_environment({"HF_TOKEN": "hf_1", "WEB_CONCURRENCY": "9", "HOME": "/home/me"})
    assert "HF_TOKEN" not in kept
    assert "WEB_CONCURRENCY" not in kept
    assert kept["HOME"] == "/home/me"
    assert kept["HF_HUB_OFFLINE"] == "1"
