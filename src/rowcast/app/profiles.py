"""Profile a table: describe its columns and list the findings of the data check that do not require a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.app.engines import usable_cores
from rowcast.errors import SettingsError

if TYPE_CHECKING:
    from rowcast.tables.profile import TableProfile


def profile_table(
    path: Path, *, exclude: Sequence[str] = (), keep: Sequence[str] = (), sensitive: Sequence[str] = ()
) -> TableProfile:
    """Return the profile of a table file; raise TableError if the file cannot be read or a column does not exist."""
    from rowcast.tables.profile import TableProfile, profile_columns
    from rowcast.tables.spool import open_columns

    try:
        from rowcast.training.column_findings import find_in_columns
    except ModuleNotFoundError as missing:
        raise SettingsError(f"the data check requires {missing.name}; install rowcast[train]") from None
    with open_columns(path) as store:
        table = store.sample
        left_out = table.resolve_columns(exclude, "exclude")
        kept = table.resolve_columns(keep, "keep")
        hidden = table.resolve_columns(sensitive, "sensitive")
        names = [name for name in store.names if name not in left_out]
        columns = profile_columns(store, names, hidden, threads=usable_cores())
        findings = find_in_columns(store, columns, exclude=left_out, keep=kept, sensitive=hidden)
        return TableProfile(
            table=path.name,
            rows=store.rows,
            duplicates=store.copies,
            columns=columns,
            findings=findings,
            findings_rows=table.frame.height,
        )
