"""Parses `multipart/form-data` (RFC 7578) chunk by chunk. This module does no IO and keeps one chunk in memory.

The name of an uploaded file is ignored, because clients choose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from rowcast.errors import BodyError, RequestError

MAX_HEAD_BYTES: Final = 8 * 1024
MAX_PARTS: Final = 20
_find_boundary = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE).search
_find_name = re.compile(rb'[;\s]name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE).search


class PartStart(NamedTuple):
    """The beginning of a part, with the name of its form field."""

    name: str


class PartData(NamedTuple):
    """A piece of the current part's content."""

    content: bytes


class PartEnd(NamedTuple):
    """The end of the current part."""


MultipartEvent = PartStart | PartData | PartEnd


class MultipartParser:
    """Converts the chunks of a body into events. A chunk may end anywhere."""

    def __init__(self, content_type: bytes) -> None:
        match = _find_boundary(content_type)
        if match is None:
            raise RequestError(
                "the content type multipart/form-data has no boundary parameter", slug="unsupported-media-type"
            )
        self._delimiter = b"\r\n--" + (match[1] or match[2])
        self._buffer = b"\r\n"  # the first delimiter does not need a line break before it
        self._state = "preamble"
        self._parts = 0

    @property
    def is_complete(self) -> bool:
        """Whether the final delimiter has been parsed."""
        return self._state == "end"

    def feed(self, content: bytes) -> Iterator[MultipartEvent]:
        """Parse the next chunk; raise BodyError if the body is malformed."""
        self._buffer += content
        while True:
            if self._state == "end":
                self._buffer = b""
                return
            if self._state == "head":
                event = self._parse_head()
                if event is None:
                    return
                yield event
            elif self._state == "delimiter":
                if not self._parse_delimiter():
                    return
            else:
                yield from self._parse_content()
                if self._state in ("preamble", "content"):
                    return

    def _parse_content(self) -> Iterator[MultipartEvent]:
        """Yield the content before the next delimiter or, if none is found, all bytes that cannot belong to one."""
        at = self._buffer.find(self._delimiter)
        end = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        content, self._buffer = self._buffer[:end], self._buffer[end:]
        is_part = self._state == "content"
        if content and is_part:
            yield PartData(content)
        if at >= 0:
            self._buffer = self._buffer[len(self._delimiter) :]
            self._state = "delimiter"
            if is_part:
                yield PartEnd()

    def _parse_delimiter(self) -> bool:
        """Parse the rest of a delimiter line; return False if more bytes are needed."""
        line, line_break, rest = self._buffer.partition(b"\r\n")
        if self._buffer.startswith(b"--"):
            self._state = "end"
            return True
        if not line_break:
            if len(line) > MAX_HEAD_BYTES:
                raise BodyError("the multipart body is malformed: a delimiter has no line break after it")
            return False
        if line.strip(b" \t"):
            raise BodyError("the multipart body is malformed: unexpected bytes after a delimiter")
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BodyError(f"the multipart body has more than {MAX_PARTS} parts")
        # A head without header lines consists only of the empty line.
        self._buffer, self._state = b"\r\n" + rest, "head"
        return True

    def _parse_head(self) -> PartStart | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BodyError(f"the headers of a part are larger than {MAX_HEAD_BYTES} bytes")
            return None
        # The delimiter after an empty part begins with the line break that ends the head.
        self._buffer, self._state = rest, "content"
        for line in head.split(b"\r\n"):
            field, _, value = line.partition(b":")
            if field.strip().lower() == b"content-disposition":
                match = _find_name(value)
                if match is not None:
                    name = match[1] if match[1] is not None else match[2]
                    return PartStart(name.decode("utf-8", "replace"))
        raise BodyError("a part of the multipart body has no name")
