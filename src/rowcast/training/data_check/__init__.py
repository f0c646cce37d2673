"""Check the data before training; report findings about the target, pairs of columns and special columns."""
