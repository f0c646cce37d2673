"""API keys, scopes, tenants and quotas. Pure: no clock, no randomness, no IO."""
