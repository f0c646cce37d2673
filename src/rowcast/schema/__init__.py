"""The columns of a model, their valid values, and the conversion of rows into tensors.

This package is pure: it performs no IO and uses neither a clock nor randomness.
"""
