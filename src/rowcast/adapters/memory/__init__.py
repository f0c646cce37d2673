"""Adapters that keep everything in memory: for the Python API, for notebooks and for tests."""
