"""The ASGI app, configured by environment variables and `rowcast.toml`. Run it with `uvicorn rowcast.asgi:app`."""

from rowcast import settings
from rowcast.app import logs, server


def _load_settings() -> settings.Settings:
    """Load the settings and configure logging. The format of uvicorn's own log lines does not change."""
    loaded = settings.load()
    logs.configure_logging(loaded)
    return loaded


app = server.application(_load_settings)
