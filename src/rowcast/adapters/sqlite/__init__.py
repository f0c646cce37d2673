"""SQLite adapters: the history store, the idempotency store and the job store."""
