"""Adapters, one technology per folder. Only `app` imports them, lazily."""
