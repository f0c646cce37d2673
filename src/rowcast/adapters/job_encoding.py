"""How SQL stores encode jobs and chunks."""

from __future__ import annotations

import msgspec

from rowcast.jobs.job import ChunkRecord, Job

encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_chunk = msgspec.msgpack.Decoder(ChunkRecord).decode
