"""SQLite adapters: the history store and the idempotency store."""
