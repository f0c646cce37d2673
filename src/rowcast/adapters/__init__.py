"""Adapters, grouped by technology. Only the `app` package imports adapters, and it does so lazily."""
