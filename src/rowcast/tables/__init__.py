"""Read tables, infer their schema, encode them, and write them with predictions.

Requests to a server never import this package, because importing polars takes 0.3 s and 60 MB.
"""
