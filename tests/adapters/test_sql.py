"""Code shared by the SQLite and PostgreSQL stores."""

from __future__ import annotations

from rowcast.adapters.sql import changed_fields, index_conditions, query_values
from rowcast.history.copied_fields import copied_fields
from rowcast.history.entry_filter import Selection
from support.entries import drafts, sealed


def test_only_the_fields_and_bounds_that_are_set_become_parameters() -> None:
    values = query_values(Selection(tenant="", model="m", ids=()), {"before": "b", "after": None})

    assert values == {"tenant": "", "model": "m", "before": "b"}


def test_only_a_nonempty_string_can_use_a_partial_index() -> None:
    assert index_conditions({"tenant": "", "label": "yes", "model": "m"}) == ["e.label <> ''"]


def test_all_changed_copies_and_no_others_are_reported() -> None:
    first, second = sealed("w", drafts(0, 2))
    copies = copied_fields(second.head)
    rows = [
        (0, first.head, *copied_fields(first.head)),
        (1, second.head, *copies._replace(label="other")),
        (2, b"damaged", *copies),
    ]

    assert list(changed_fields(rows)) == [(1, "label")]
    assert list(changed_fields(rows[1:2], lambda fields: fields._replace(label="other"))) == []
