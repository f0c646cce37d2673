"""File-based adapters: journals, the registry folder, API keys, locks and server state."""
