"""Plain files: journals, registry folder, keys, locks, worker state."""
