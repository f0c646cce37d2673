"""A bundle is one version of a model, stored as a folder of plain files.

`pack` writes a bundle; `open` and `verify` read and check a bundle.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rowcast.errors import BundleError
from rowcast.output_files import refuse_overwriting
from rowcast.schema import identity
from rowcast.schema.encoding import Plan
from rowcast.schema.prediction import Activation, Decision, OutputKind, Score
from rowcast.schema.schema import Schema, Value

FORMAT = 1
MODEL = "model.onnx"
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
REFERENCE = "reference.parquet"
TRAINING_ROWS = "training_rows.bin"
"""Hashes of the training rows; see `training/row_hashes.py`."""
CARD = "MODEL_CARD.md"
REPORT = "report.html"
SERVING_FILES = (MODEL, GOLDEN)
MAX_JSON_MB = 8
"""The maximum size of each JSON file in a bundle, in mebibytes. Decoded JSON can take 20 times as much memory."""
MAX_JSON_BYTES = MAX_JSON_MB * 1024 * 1024


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """The graph output that contains the scores. Only imported graphs return raw scores or labels."""

    name: str
    kind: OutputKind
    activation: Activation = "none"
    """The function that converts raw scores into probabilities."""


class Measure(msgspec.Struct, frozen=True):
    """The value of a metric on the holdout, with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Parity(msgspec.Struct, frozen=True):
    """A comparison of the served graph with the trained model on the same rows."""

    rows: int
    max_abs_diff: float
    label_flips: int


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The training data and settings, described in enough detail to repeat the training run."""

    table: str
    sha256: str
    rows: int
    target: str
    seed: int
    candidate: str
    params: dict[str, Any]
    calibration: dict[str, Any]
    options: dict[str, Any] = {}


class GoldenRow(msgspec.Struct, frozen=True):
    """A row in the form that clients send, and the score that the graph must return for this row."""

    row: dict[str, Value]
    score: Score = msgspec.field(name="outcome")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `bundle.json`. Fields can be added but are never removed. Readers reject an unknown `format`."""

    format: int = FORMAT
    name: str
    digest: str = ""
    created: str
    schema: Schema
    plan: Plan
    output: Output
    decision: Decision
    wire: dict[str, Any] | None = None
    metric: str
    score: float
    holdout: dict[str, Measure]
    parity: Parity
    training: Fingerprint
    versions: dict[str, str]
    files: dict[str, str] = {}

    def serving(self) -> list[Any]:
        """Return the parts of the manifest that determine a prediction. The bundle's digest covers them."""
        return [self.schema, self.plan, self.output, self.decision, self.wire]


class _Format(msgspec.Struct):
    """The only field of a manifest that is read before its format is known."""

    format: int | float | str | bool | None = None


class Bundle:
    """An opened bundle whose serving files match the digests in its manifest."""

    def __init__(self, folder: Path, manifest: Manifest, model: bytes, golden: list[GoldenRow]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.model = model
        self.golden = golden


def pack(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle into an empty folder; return its manifest with all digests filled in."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    complete = msgspec.structs.replace(manifest, files=digests, digest=_digest(manifest, digests))
    encoded = {**files, MANIFEST: msgspec.json.format(msgspec.json.encode(complete), indent=2)}
    for name in (GOLDEN, MANIFEST):
        _check_size(name, len(encoded.get(name, b"")))
    for name, content in encoded.items():
        (folder / name).write_bytes(content)
    return complete


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest without checking any other files; raise BundleError if the manifest is not valid."""
    path = folder / MANIFEST
    try:
        _check_size(path, path.stat().st_size)
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Format).format
        if version != FORMAT:
            message = f"{path} has bundle format {version!r}; this version of Rowcast supports format {FORMAT}"
            raise BundleError(message, slug="bundle-format")
        return msgspec.json.decode(content, type=Manifest)
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: {MANIFEST} is missing", slug="not-a-bundle") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}", slug="unreadable") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}", slug="damaged-bundle") from None


def open(folder: Path) -> Bundle:
    """Read a bundle and check its format, its digest and its serving files."""
    manifest = read_manifest(folder)
    contents = {name: read_file(folder, name, manifest) for name in SERVING_FILES}
    if manifest.digest != _digest(manifest, manifest.files):
        message = f"{folder / MANIFEST} was changed after it was written: its digest does not match"
        raise BundleError(message, slug="digest-mismatch")
    try:
        golden = msgspec.json.decode(contents[GOLDEN], type=list[GoldenRow])
    except msgspec.MsgspecError as error:
        raise BundleError(f"{folder / GOLDEN} is damaged: {error}", slug="damaged-bundle") from None
    return Bundle(folder, manifest, contents[MODEL], golden)


def verify(folder: Path) -> Manifest:
    """Open the bundle and check every file that the manifest lists; return the manifest."""
    manifest = open(folder).manifest
    for name in manifest.files:
        read_file(folder, name, manifest)
    return manifest


@contextmanager
def graph_writer(path: Path, inputs: Iterable[Any] = ()) -> Iterator[Callable[[Path], None]]:
    """Yield a function that atomically copies a bundle's graph to `path`.

    Raise an error immediately if `path` cannot be written or is one of the input files, so that a long training run
    does not fail at the end.
    """
    refuse_overwriting(path, inputs)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _write_errors(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            part.write_bytes(b"")

        def write(folder: Path) -> None:
            with _write_errors(path):
                shutil.copyfile(folder / MODEL, part)
                part.replace(path)

        yield write
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Convert OSError into BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from None


def _check_size(path: str | Path, size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise BundleError(f"{path} is too large: {size} bytes; the limit is {MAX_JSON_MB} MB", slug="too-large")


def _digest(manifest: Manifest, digests: Mapping[str, str]) -> str:
    return identity.bundle_digest(manifest.serving(), [(name, digests.get(name, "")) for name in SERVING_FILES])


def read_file(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Return a file's content; raise BundleError if the content does not match the digest in the manifest."""
    path = folder / name
    if name != path.name or name not in manifest.files:
        raise BundleError(f"{folder / MANIFEST} does not list {name} among the bundle's files", slug="unlisted-file")
    try:
        if name == GOLDEN:
            _check_size(path, path.stat().st_size)
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}", slug="unreadable") from None
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise BundleError(
            f"{path} was changed after it was written: its SHA-256 digest does not match", slug="digest-mismatch"
        )
    return content
