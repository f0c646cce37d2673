"""`uvicorn rowcast.asgi:app`: the public ASGI app, configured by the environment and `rowcast.toml`."""

from rowcast import settings
from rowcast.app import logs as app_logs
from rowcast.app import server as app_server


def _settings() -> settings.Settings:
    """What holds when the server starts; its log is ours, the lines of uvicorn itself stay as they are."""
    found = settings.load()
    app_logs.configure_logging(found)
    return found


app = app_server.application(_settings)
