"""A bare JSON echo server, which does the least work that a JSON service can do. It reads a body, decodes it, encodes a
reply and sends it.

It has no framework, no validation and no model. The benchmarks express Rowcast's cost as a multiple of this cost.
"""

from __future__ import annotations

from typing import Any

import msgspec

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Echo a JSON document."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = encode(decode(body))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
