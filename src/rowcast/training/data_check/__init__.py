"""The data check before training: findings about the target, about pairs of columns and about special columns."""
