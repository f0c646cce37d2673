"""Composition roots, one for each type of process. Only this package selects adapters; it imports them lazily."""
