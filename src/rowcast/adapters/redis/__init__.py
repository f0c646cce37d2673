"""Adapters that use a Redis server: shared cache and shared quotas."""
