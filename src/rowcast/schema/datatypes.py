"""The datatypes of the Open Inference Protocol.

This module does not import numpy, so that a gateway can run without numpy.
"""

from __future__ import annotations

BYTES, BOOL = "BYTES", "BOOL"
LAYOUTS = {
    BOOL: "?",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
"""The numpy format of each fixed-size datatype in a binary tensor."""
DATATYPES = (*LAYOUTS, BYTES)
