"""A bare JSON echo server, used as a lower bound on the cost of a JSON service: it decodes a body and encodes a reply.

It has no framework, no validation and no model. The benchmarks compare Rowcast's cost with the cost of this server.
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
