"""The columns of a model, their valid values, and the conversion of rows to tensors.

Pure code: no clock, no randomness, no IO.
"""
