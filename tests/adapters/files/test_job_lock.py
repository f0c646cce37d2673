"""The job runner's lock."""

from __future__ import annotations

from pathlib import Path

from rowcast.adapters.files.job_lock import is_runner_running, runner_lock


def test_only_one_runner_holds_the_lock_and_the_next_runner_receives_the_name_of_its_predecessor(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    assert not is_runner_running(folder)
    with runner_lock(folder, "first-runner") as previous:
        assert previous == ""
        assert is_runner_running(folder)
        with runner_lock(folder, "second") as other:
            assert other is None

    assert not is_runner_running(folder)
    with runner_lock(folder, "third") as previous:
        assert previous == "first-runner"
    with runner_lock(folder, "fourth") as previous:
        assert previous == "third"
