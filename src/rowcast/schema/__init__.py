"""The columns of a model, their valid values, and the conversion of rows to tensors.

This package is pure: it uses no clock, no randomness and no IO.
"""
