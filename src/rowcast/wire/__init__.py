"""Wire templates, with which a model accepts and returns the JSON of another system."""
