"""The data check: what is noticed about a table before training, and what is done about it."""
