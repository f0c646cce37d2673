"""Server processes: their supervisor, startup and shutdown, and the HTTP protocol class."""
