"""Wire templates, which let a model accept and return the JSON of another system."""
