"""Requests that wait to be scored. This module loads neither numpy nor ONNX Runtime, so that dialects can import it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from rowcast.access.context import RequestContext
from rowcast.serving.ports import Answer
from rowcast.serving.rows import Row

if TYPE_CHECKING:
    from rowcast.serving.live_models import LiveModel

Render = Callable[[bytes], bytes]
"""Converts a native reply to a wire template's reply."""


class PendingRequest(msgspec.Struct, frozen=True):
    """Rows to be scored, and the object that receives their replies."""

    model: LiveModel
    rows: Sequence[Row]
    context: RequestContext
    answer: Answer
    is_single: bool
    """Whether the reply is one prediction instead of a list."""
    render: Render | None = None
