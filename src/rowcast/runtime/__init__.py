"""Server processes: supervisor, workers, startup and shutdown, and the HTTP protocol class."""
