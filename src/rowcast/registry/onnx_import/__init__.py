"""Convert an untrusted ONNX graph and its metadata into a bundle, in a child process with limited resources."""
