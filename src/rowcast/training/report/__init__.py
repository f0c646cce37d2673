"""The training report: what is measured about a model, drawn and written as one HTML page."""
