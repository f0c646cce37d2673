"""Scoring whole tables."""
