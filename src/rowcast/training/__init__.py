"""Training turns a table into a certified bundle. Servers never import this package."""
