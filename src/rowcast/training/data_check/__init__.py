"""The data check before training: it reports findings about the target, pairs of columns and special columns."""
