"""The dialects of other systems: each module turns its requests into rows, and answers into its replies; between the
two lies `Predictor`, as for the native dialect."""
