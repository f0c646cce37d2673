"""The datatypes of the Open Inference Protocol. Does not import numpy, so that a gateway can describe tensors."""

from __future__ import annotations

BYTES, BOOL = "BYTES", "BOOL"
LAYOUTS = {
    BOOL: "?",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
"""The layout of each number in a binary tensor, as numpy names it."""
DATATYPES = (*LAYOUTS, BYTES)
