"""Process life: the supervisor, server processes, their lifecycle and drain, and the HTTP protocol class."""
