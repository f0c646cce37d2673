"""`uvicorn rowcast.asgi:app`: the public ASGI app, configured by the environment and `rowcast.toml`."""

from rowcast import settings, wiring


def _settings() -> settings.Settings:
    """What holds when the server starts; its log is ours, the lines of uvicorn itself stay as they are."""
    found = settings.load()
    wiring.configure_logging(found)
    return found


app = wiring.application(_settings)
