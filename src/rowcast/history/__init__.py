"""History: hash chains of all predictions, which can be verified, replayed and exported. Rows can be erased."""
