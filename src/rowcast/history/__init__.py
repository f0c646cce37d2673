"""History: a record of every prediction, as a chain of hashes that can be verified, replayed, exported and erased."""
