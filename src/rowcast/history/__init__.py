"""Recorded predictions: entries, their hash chain, journals, the store, verification, replay, erasure and export."""
