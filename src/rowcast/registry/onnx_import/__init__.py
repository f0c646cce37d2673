"""Turns an untrusted ONNX graph and its metadata into a bundle. Runs in a child process with limited resources."""
