"""The state of server processes before they have reported anything."""

from __future__ import annotations

import msgspec

from rowcast.serving.fleet import ProcessReport, ProcessStatus, ReloadResult

UNREPORTED = {"models": (), "generation": -1, "asked": 0, "reload_error": ""}


def test_a_new_server_process_is_starting_and_serves_nothing() -> None:
    assert msgspec.to_builtins(ProcessReport(7), builtin_types=(tuple,)) == {
        "pid": 7,
        "state": "starting",
        **UNREPORTED,
    }


def test_a_server_process_that_has_not_started_has_an_empty_status() -> None:
    assert msgspec.to_builtins(ProcessStatus(0, "dead")) == {
        "process": 0,
        "state": "dead",
        "pid": None,
        **UNREPORTED,
        "silent_seconds": 0.0,
        "waiting": 0,
        "waiting_seconds": 0.0,
    }


def test_a_reload_without_imported_files_has_no_imports() -> None:
    assert ReloadResult("ok", []).imports == []
