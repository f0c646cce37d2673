"""The request path: live models, the predictor that every door goes through, and history's way into the store."""
