"""Number formats for pages and charts."""

from __future__ import annotations

import math


def format_number(value: float) -> str:
    """Format a number for display; NaN and infinity become a dash."""
    if not math.isfinite(value):
        return "–"
    if 0.001 <= abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:,.5g}" if abs(value) < 1e6 else f"{value:.5g}"


def abbreviate_number(value: float) -> str:
    """Format a number compactly, for example as "0.25", "1,200", "45k" or "1.2M"."""
    size = abs(value)
    if size >= 1e13 or 0 < size < 1e-4:
        return f"{value:.3g}"
    for start, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= start:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"
