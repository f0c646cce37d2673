"""Adapters, with one folder per technology. Only `app` imports them, and only when they are needed."""
