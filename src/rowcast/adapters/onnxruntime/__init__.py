"""Adapters for ONNX Runtime, with its telemetry turned off.

Otherwise, ONNX Runtime stores a device ID and error messages in the user's cache folder and sends them to its vendor.
The messages can contain values from rows. ONNX Runtime reads the environment variable when it is imported.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # noqa: TID251 - the only switch that takes effect before the import
