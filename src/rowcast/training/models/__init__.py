"""The kinds of models that a training run can try."""
