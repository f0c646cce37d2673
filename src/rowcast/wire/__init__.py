"""Wire templates: the JSON of other systems, as a model's own requests and replies."""
