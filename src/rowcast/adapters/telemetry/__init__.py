"""Adapters for metrics and traces."""
