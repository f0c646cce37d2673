"""The request path: live models, batching, scoring, recording, the score cache, quotas and reloads."""
