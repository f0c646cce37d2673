"""Which process runs jobs, and where job files are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.files.job_lock import runner_lock
from rowcast.app import jobs
from rowcast.errors import SettingsError
from support.jobs import new_job


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_the_files_of_jobs_are_in_the_configured_folder(tmp_path: Path, prefix: str) -> None:
    store = jobs.file_store(
        settings.load(home=tmp_path / "home", files=f"{prefix}{tmp_path / 'shared'}", min_free_mb=0)
    )

    store.put("j/a", b"x")

    assert (tmp_path / "shared" / "j" / "a").read_bytes() == b"x"


def test_an_unknown_kind_of_file_store_is_refused_without_showing_credentials(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        jobs.file_store(settings.load(home=tmp_path, files="ftp://me:hidden-word@host/x"))
    assert "'files'" in refused.value.message
    assert "hidden-word" not in refused.value.message


def test_a_server_starts_a_runner_only_for_jobs_that_no_other_process_runs(tmp_path: Path) -> None:
    loaded = settings.load(home=tmp_path / "home")
    server, worker = (jobs.job_parts(loaded, is_worker=is_worker).child for is_worker in (False, True))

    assert not server._is_needed()
    assert not (tmp_path / "home").exists()

    store, place = jobs.job_store(loaded), jobs.file_store(loaded).place
    store.add(new_job(1, place="another machine"), max_open=10)
    assert not server._is_needed()

    store.add(new_job(2, place=place), max_open=10)
    assert server._is_needed()
    with runner_lock(loaded.run_folder, "r"):
        assert not server._is_needed()

    assert worker._is_needed()
    assert not server._is_needed()
    store.close()
