"""The sync and async clients behind a common interface, so that each test can cover both clients."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Self

from rowcast.client import AsyncClient, Client


class BlockingAsyncClient:
    """Runs each call of an `AsyncClient` on a private event loop and waits for the result."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            return self._runner.run(_collect(result) if inspect.isasyncgen(result) else result)

        return call

    def __repr__(self) -> str:
        return repr(self._client)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


KINDS: dict[str, Any] = {"sync": Client, "async": BlockingAsyncClient}
