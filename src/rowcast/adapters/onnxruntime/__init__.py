"""Adapters for ONNX Runtime, with its telemetry turned off.

If telemetry is on, ONNX Runtime stores a device ID and error messages in the user's cache folder and sends them to its
vendor. The messages can contain values from rows. `ORT_DISABLE_TELEMETRY` must be set before ONNX Runtime is imported.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - the only switch that takes effect before the import
