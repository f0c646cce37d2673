"""The columns of a model, the values they accept, and the conversion of rows to tensors.

Pure code: no clock, no randomness, no IO.
"""
