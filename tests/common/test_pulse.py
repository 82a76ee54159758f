"""Signs of life can be told from each other, and their want from a silence."""

import os
from pathlib import Path

from common.pulse import PULSE_FILE, Pulse, last_beat


def test_every_beat_changes_the_file(tmp_path: Path) -> None:
    assert last_beat(str(tmp_path)) is None
    pulse = Pulse(str(tmp_path))
    os.utime(tmp_path / PULSE_FILE, ns=(1, 1))
    assert last_beat(str(tmp_path)) == 1
    pulse.beat()
    assert last_beat(str(tmp_path)) != 1
    pulse.close()
    Pulse(str(tmp_path)).close()  # the next scheduler's
    assert (tmp_path / PULSE_FILE).stat().st_mode & 0o777 == 0o600
