"""Composition roots, one for each process. The only place that picks adapters; each is imported lazily."""
