"""Published bundles, their names and aliases, archives, and imports of foreign models."""
