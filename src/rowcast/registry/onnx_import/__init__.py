"""Convert an untrusted ONNX graph and its metadata to a bundle, in a child process with limited resources."""
