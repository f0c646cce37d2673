"""Scoring of whole tables."""
