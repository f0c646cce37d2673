"""The kinds of models that compete in training."""
