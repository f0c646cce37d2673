"""`uvicorn rowcast.asgi:app`: the public ASGI app, configured by the environment and `rowcast.toml`."""

from rowcast import settings, wiring

app = wiring.application(settings.load)
