"""The bundle: one model version as a folder of plain files. Packing writes it, opening trusts nothing in it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rowcast.errors import BundleError
from rowcast.schema import identity
from rowcast.schema.encoding import Plan
from rowcast.schema.prediction import Activation, Decision, OutputKind, Score
from rowcast.schema.schema import Schema

FORMAT = 1
MODEL = "model.onnx"
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
REFERENCE = "reference.parquet"
CARD = "MODEL_CARD.md"
REPORT = "report.html"
SERVING_FILES = (MODEL, GOLDEN)
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """The output of the graph that is read; of foreign graphs also raw scores or labels."""

    name: str
    kind: OutputKind
    activation: Activation = "none"
    """What makes probabilities of raw scores."""


class Measure(msgspec.Struct, frozen=True):
    """A metric on the holdout with its bootstrap interval (95 %)."""

    value: float
    low: float
    high: float


class Parity(msgspec.Struct, frozen=True):
    """The certificate: how far the served graph is from the trained model."""

    rows: int
    max_abs_diff: float
    label_flips: int


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What the model was trained on and how, enough to train it again."""

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
    """A row as a client would send it, and what must come out."""

    row: dict[str, Any]
    outcome: Score


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`bundle.json`. Fields are only ever added; a reader refuses a newer `format`."""

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
        """The part that decides an answer; its digest is the bundle's identity."""
        return [self.schema, self.plan, self.output, self.decision, self.wire]


class Bundle:
    """An opened bundle whose serving files were found to be what the manifest says."""

    def __init__(self, folder: Path, manifest: Manifest, model: bytes, golden: list[GoldenRow]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.model = model
        self.golden = golden


def pack(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle into an empty folder; return its manifest, completed with all digests."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    complete = msgspec.structs.replace(manifest, files=digests, digest=_digest(manifest, digests))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2))
    return complete


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, of a format this version reads."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
        document = msgspec.json.decode(path.read_bytes())
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise BundleError(f"{path} has bundle format {found!r}; this version of Rowcast reads format {FORMAT}")
        return msgspec.convert(document, Manifest)
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {error}") from None


def open(folder: Path) -> Bundle:
    """A bundle ready to be loaded: format, digest and serving files are checked."""
    manifest = read_manifest(folder)
    contents = {name: _checked(folder, name, manifest) for name in SERVING_FILES}
    if manifest.digest != _digest(manifest, manifest.files):
        raise BundleError(f"{folder / MANIFEST} was changed after it was packed: its digest does not match")
    try:
        golden = msgspec.json.decode(contents[GOLDEN], type=list[GoldenRow])
    except msgspec.MsgspecError as error:
        raise BundleError(f"{folder / GOLDEN} is damaged: {error}") from None
    return Bundle(folder, manifest, contents[MODEL], golden)


def verify(folder: Path) -> Manifest:
    """Check every file the manifest names, not the serving files alone."""
    manifest = open(folder).manifest
    for name in manifest.files:
        _checked(folder, name, manifest)
    return manifest


@contextmanager
def extracting(path: Path) -> Iterator[Callable[[Path], None]]:
    """Puts the graph of a bundle into a file of its own, whole or not at all; a place that takes none is told now."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _told(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            part.write_bytes(b"")

        def extract(folder: Path) -> None:
            with _told(path):
                shutil.copyfile(folder / MODEL, part)
                part.replace(path)

        yield extract
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror or error}") from None


def _digest(manifest: Manifest, digests: Mapping[str, str]) -> str:
    return identity.bundle_digest(manifest.serving(), [(name, digests.get(name, "")) for name in SERVING_FILES])


def _checked(folder: Path, name: str, manifest: Manifest) -> bytes:
    path = folder / name
    if name != path.name or name not in manifest.files:
        raise BundleError(f"{folder / MANIFEST} does not name {name}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise BundleError(f"{path} was changed after it was packed: its sha256 does not match")
    return content
