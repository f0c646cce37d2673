"""Adapters for Redis: the shared cache, the shared quotas and the queue."""
