"""Adapters on ONNX Runtime."""
