"""History: hash chains that record every prediction. They can be verified, replayed and exported; rows can be
erased."""
