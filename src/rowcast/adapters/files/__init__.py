"""Adapters for plain files: journals, the registry folder, API keys, locks and worker state."""
