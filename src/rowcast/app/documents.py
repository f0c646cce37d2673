"""Reads small documents, such as wire templates and model metadata, from files."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rowcast.errors import DocumentError
from rowcast.wire.document import PARSERS, parse_document

MAX_BYTES: Final = 1024 * 1024


def read_document(source: str | Path | Mapping[str, Any], kind: str = "wire template") -> dict[str, Any]:
    """Return a document, given as a mapping, as JSON text or as the path of a YAML, TOML or JSON file.

    Raise DocumentError if the document cannot be read. `kind` describes the expected document in error messages.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return parse_document(source, ".json", kind)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in PARSERS:
        message = f"cannot read a {kind} from this file; its name must end in {', '.join(PARSERS)}"
        raise DocumentError(str(path), "", message, slug="unknown-suffix")
    return parse_document(_read_text(path), suffix, str(path))


def _read_text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading from a pipe could block
            raise DocumentError(str(path), "", "not a regular file", slug="not-a-file")
        if status.st_size > MAX_BYTES:
            raise DocumentError(str(path), "", f"larger than {MAX_BYTES} bytes", slug="too-large")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DocumentError(str(path), "", f"cannot be read: {error.strerror or error}", slug="unreadable") from None
    except UnicodeDecodeError:
        raise DocumentError(str(path), "", "not valid UTF-8", slug="not-utf-8") from None
