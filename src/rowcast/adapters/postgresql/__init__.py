"""PostgreSQL adapter: a history store that several machines can share."""
