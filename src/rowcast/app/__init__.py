"""Composition roots, one for each kind of process. Only this package selects adapters; it imports them lazily."""
