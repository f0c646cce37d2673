"""PostgreSQL adapters: stores that several machines can share."""
