"""Tables: read them, infer their schema, encode them, and write them with predictions.

Requests to a server never import this package, because polars costs 0.3 s and 60 MB.
"""
