"""Published bundles: their files, names, aliases and archives, and the import of models trained elsewhere."""
