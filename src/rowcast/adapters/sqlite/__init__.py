"""Adapters on SQLite: the history store, and the replies by idempotency key."""
