"""In-memory adapters for the Python API, notebooks and tests."""
