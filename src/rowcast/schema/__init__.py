"""The columns a model takes, their values, and the way from a row to tensors. Pure: no clock, no randomness, no IO."""
