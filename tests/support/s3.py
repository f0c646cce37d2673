"""A small in-memory S3 server for objects, listings, bulk deletion and multipart uploads. It does not check
signatures."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

BUCKET = "bucket"
XML = "application/xml"


class S3Server(ThreadingHTTPServer):
    """The server; `objects` maps the name of each object to its content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.is_failing = False

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that a client needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
        }


class _Handler(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""

    def _answer(self, status: int, body: bytes = b"", content_type: str = XML, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", content_type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _request(self) -> tuple[str, dict[str, str], bytes]:
        """Return the object's name, the query parameters and the body of the request."""
        parts = urlsplit(self.path)
        name = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return name, query, self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_PUT(self) -> None:
        name, query, body = self._request()
        if self.server.is_failing:
            self._answer(503)
            return
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
        else:
            self.server.objects[name] = body
        self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def do_GET(self) -> None:
        name, query, _ = self._request()
        if self.server.is_failing:
            self._answer(503)
        elif "list-type" in query:
            self._answer(200, self._listing(query.get("prefix", ""), query.get("delimiter", "")))
        elif name in self.server.objects:
            body = self.server.objects[name]
            tag, moment = f'"{hashlib.md5(body).hexdigest()}"', formatdate(usegmt=True)
            self._answer(200, body, "application/octet-stream", ETag=tag, Last_Modified=moment)
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def do_DELETE(self) -> None:
        name, _, _ = self._request()
        self.server.objects.pop(name, None)
        self._answer(204)

    def do_POST(self) -> None:
        name, query, body = self._request()
        if "delete" in query:
            keys = [node.text or "" for node in ET.fromstring(body).iter() if node.tag.endswith("Key")]
            for key in keys:
                self.server.objects.pop(key, None)
            deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        elif "uploads" in query:
            upload = uuid.uuid4().hex
            self.server.uploads[upload] = {}
            start = f"<Bucket>{BUCKET}</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
            self._answer(200, f"<InitiateMultipartUploadResult>{start}</InitiateMultipartUploadResult>".encode())
        else:
            parts = self.server.uploads.pop(query["uploadId"])
            self.server.objects[name] = b"".join(parts[number] for number in sorted(parts))
            self._answer(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def _listing(self, prefix: str, delimiter: str) -> bytes:
        names = sorted(name for name in self.server.objects if name.startswith(prefix))
        folders = dict.fromkeys(
            prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter
            for name in names
            if delimiter and delimiter in name[len(prefix) :]
        )
        plain = [name for name in names if not (delimiter and delimiter in name[len(prefix) :])]
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>{len(self.server.objects[name])}</Size></Contents>"
            for name in plain
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>".encode()


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    """Run a server during a `with` block."""
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
