"""History: a record of every prediction, as a hash chain that can be verified, replayed, exported and erased."""
