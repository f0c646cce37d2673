"""The values of settings: URLs are shown without their passwords."""

from __future__ import annotations

import pytest

from rowcast.setting_values import hide_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host/db", "postgresql://(hidden)@host/db"),
        ("postgresql://user:se/c?r@e#t@host:1/db", "postgresql://(hidden)@host:1/db"),
        (
            "postgresql://host?sslmode=require&password=secret&SSLPassword=secret&port=1",
            "postgresql://host?sslmode=require&password=(hidden)&SSLPassword=(hidden)&port=1",
        ),
        ("sqlite:////data/history.db", "sqlite:////data/history.db"),
    ],
)
def test_passwords_in_urls_are_hidden(url: str, shown: str) -> None:
    assert hide_credentials(url) == shown
