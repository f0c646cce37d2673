"""Models that others made: an ONNX graph with a page of metadata becomes a bundle. Run it in a bounded process."""
