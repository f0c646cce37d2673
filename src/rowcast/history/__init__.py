"""The history: entries in hash chains. Entries can be verified, replayed and exported, and their rows can be erased."""
