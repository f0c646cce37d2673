"""The state of workers before they have reported anything."""

from __future__ import annotations

import msgspec

from rowcast.serving.fleet import ReloadResult, WorkerReport, WorkerStatus

UNREPORTED = {"models": (), "generation": -1, "asked": 0, "reload_error": ""}


def test_a_new_worker_is_starting_and_serves_nothing() -> None:
    assert msgspec.to_builtins(WorkerReport(7), builtin_types=(tuple,)) == {"pid": 7, "state": "starting", **UNREPORTED}


def test_a_worker_without_a_process_has_an_empty_status() -> None:
    assert msgspec.to_builtins(WorkerStatus(0, "dead")) == {
        "worker": 0,
        "state": "dead",
        "pid": None,
        **UNREPORTED,
        "silent_seconds": 0.0,
        "waiting": 0,
        "waiting_seconds": 0.0,
    }


def test_a_reload_without_imported_files_has_no_imports() -> None:
    assert ReloadResult("ok", []).imports == []
