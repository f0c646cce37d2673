"""The HTTP interface: the edge in front of every route, the routes, authentication, idempotency and problem details."""
