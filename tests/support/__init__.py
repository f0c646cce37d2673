"""What several test modules share: strategies, small models, and servers that are real but short-lived."""
