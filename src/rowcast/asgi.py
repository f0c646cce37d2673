"""`uvicorn rowcast.asgi:app`: the public ASGI app, configured by the environment and `rowcast.toml`."""

from rowcast import settings
from rowcast.app import logs, server


def _load_settings() -> settings.Settings:
    """Load the settings and configure the log when the server starts; uvicorn's own log lines are unchanged."""
    loaded = settings.load()
    logs.configure_logging(loaded)
    return loaded


app = server.application(_load_settings)
