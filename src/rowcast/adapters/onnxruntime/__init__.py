"""Adapters for ONNX Runtime, with its telemetry turned off.

ONNX Runtime otherwise stores a device ID and the texts of errors, which can contain values from rows, in the user's
cache folder, and sends them to its vendor. It reads this environment variable during its import.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - the only switch that takes effect before the import
