"""Adapters, grouped by technology. Only the `app` package imports adapters, each when it is needed."""
