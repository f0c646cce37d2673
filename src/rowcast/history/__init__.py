"""The history: hash chains of entries that can be verified, replayed and exported, and whose rows can be erased."""
