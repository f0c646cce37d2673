"""HTTP: one edge in front of everything, a few hot routes, and FastAPI for the rest."""
