"""Adapters for Redis: the shared cache and the shared quotas."""
