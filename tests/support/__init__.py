"""Helpers shared by test modules: strategies, small models and short-lived real servers."""
