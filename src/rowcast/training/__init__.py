"""From a table to a certified bundle. Never imported by a server."""
