"""Scores whole tables."""
