"""One technology, one file, imported lazily by `wiring`."""
