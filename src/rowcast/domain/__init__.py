"""The core that decides: plain values in, plain values out. No clock, no randomness, no IO."""
