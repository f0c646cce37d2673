"""Read tables, infer their schema, encode them, and write them with predictions.

A server never imports this package to handle a request, because importing polars takes 0.3 s and 60 MB.
"""
