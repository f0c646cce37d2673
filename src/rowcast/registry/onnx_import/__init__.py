"""A foreign ONNX graph with its metadata becomes a bundle. Runs in a bounded process."""
