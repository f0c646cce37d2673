"""Read and encode tables, infer their schemas, and write tables with predictions.

The request path never imports this package, because importing polars takes 0.3 s and 60 MB of memory.
"""
