"""Composition roots, one for each kind of process. The only place that picks adapters; each is imported lazily."""
