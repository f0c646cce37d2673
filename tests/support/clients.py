"""Both public clients behind one face: a test says what is called, not how it is awaited."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Self

from rowcast.client import AsyncClient, Client


class Awaited:
    """An AsyncClient whose calls are waited for, each in turn, on a loop of its own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncClient(*arguments, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            return self._runner.run(_listed(found) if inspect.isasyncgen(found) else found)

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


async def _listed(found: Any) -> list[Any]:
    return [one async for one in found]


KINDS: dict[str, Any] = {"sync": Client, "async": Awaited}
