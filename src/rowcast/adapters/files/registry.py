"""A registry in a folder.

    NAME/VERSION/        a bundle
    NAME/aliases.json    the aliases of a model
    generation           the number of alias changes

Every change is an atomic rename. The registry therefore works in any local or NFS folder, and no crash can damage it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import msgspec

from rowcast.adapters.files.replacement import replace_file
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.private_files import locked, make_private_folder
from rowcast.registry.names import NAME_RULE, check_name
from rowcast.registry.ports import Reference

FORMAT = 1
STAGED = ".new-"
ALIAS_RULE = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class AliasFile(msgspec.Struct):
    """The contents of `aliases.json`."""

    format: int
    aliases: dict[str, int]


class FolderRegistry:
    """The registry in one folder. The first publication creates the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> Mapping[str, Sequence[int]]:
        """Return the versions of every model, in ascending order."""
        if not self.root.is_dir():
            return {}
        models = {}
        for folder in sorted(self.root.iterdir()):
            if NAME_RULE.fullmatch(folder.name) and folder.is_dir():
                versions = sorted(int(child.name) for child in folder.iterdir() if child.name.isdecimal())
                if versions:
                    models[folder.name] = versions
        return models

    def aliases(self, name: str) -> Mapping[str, int]:
        """Return the target version of each alias; raise ModelNotFound if the model is unknown."""
        if not (self.root / check_name(name)).is_dir():
            raise self._unknown(name)
        return self._aliases(name)

    def folder(self, reference: Reference) -> Path:
        """Return the folder of a bundle; raise ModelNotFound if it does not exist."""
        folder = self.root / check_name(reference.name) / str(reference.version)
        if not folder.is_dir():
            versions = self.models().get(reference.name)
            if not versions:
                raise self._unknown(reference.name)
            raise ModelNotFound(
                f"model {reference.name!r} has no version {reference.version}; "
                f"available versions: {', '.join(map(str, versions))}"
            )
        return folder

    def ready(self, name: str) -> None:
        """Raise RegistryError if publishing under this name would fail. Call this before a long operation."""
        with self._staging(self.root / check_name(name)):
            pass

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield an empty folder for temporary files, and delete it afterward."""
        return self._staging(self.root)

    def publish(self, name: str, fill: Callable[[Path], None], alias: str | None = None) -> Reference:
        """Call `fill` on a hidden folder, then rename the folder to the next free version number.

        The users who can read the registry can read the bundle.
        """
        home = self.root / check_name(name)
        try:
            with self._staging(home) as staging:
                fill(staging)
                mode = stat.S_IMODE(self.root.stat().st_mode)
                staging.chmod(mode)
                for path in staging.iterdir():
                    path.chmod(mode & 0o666)
                    _sync(path)
                _sync(staging)
                reference = Reference(name, self._claim(home, staging))
            _sync(home)
        except OSError as error:
            message = f"cannot write the bundle of {name} to {home}: {error.strerror}; nothing was published"
            raise RegistryError(message) from None
        if alias is not None:
            self._point_or_withdraw(reference, alias)
        return reference

    def _point_or_withdraw(self, reference: Reference, alias: str) -> None:
        try:
            self.point(reference, alias)
        except RegistryError:
            shutil.rmtree(self.root / reference.name / str(reference.version), ignore_errors=True)
            raise

    @contextmanager
    def _staging(self, home: Path) -> Iterator[Path]:
        """Yield a hidden folder, and delete it afterward. A lock shows other publishers that the folder is in use."""
        try:
            make_private_folder(self.root)
            with locked(self.root / ".lock"):
                home.mkdir(exist_ok=True)
                for folder in (self.root, *(path for path in self.root.iterdir() if path.is_dir())):
                    _clear(folder)
                handle, lock = tempfile.mkstemp(prefix=STAGED, suffix=".lock", dir=home)
                fcntl.flock(handle, fcntl.LOCK_EX)
                staging = Path(lock).with_suffix("")
                staging.mkdir()
        except OSError as error:
            raise RegistryError(f"cannot write to the registry {self.root}: {error.strerror}") from None
        try:
            yield staging
        finally:
            with locked(self.root / ".lock"):
                shutil.rmtree(staging, ignore_errors=True)
                Path(lock).unlink(missing_ok=True)
                os.close(handle)
                with suppress(OSError):
                    home.rmdir()  # removes the model's folder if the model has no versions

    def point(self, reference: Reference, alias: str) -> None:
        """Point an alias at this version. Readers see either the old or the new aliases."""
        if not ALIAS_RULE.fullmatch(alias):
            raise RegistryError(f"invalid alias {alias!r}; use a-z, 0-9, '_' and '-', starting with a letter")
        self.folder(reference)
        home = self.root / reference.name
        try:
            with locked(home / ".lock"):
                _remove(home.glob(".aliases.json-*"))  # left by dead writers: a live writer would hold the lock
                aliases = {**self._aliases(reference.name), alias: reference.version}
                content = msgspec.json.encode(AliasFile(FORMAT, dict(sorted(aliases.items()))))
                replace_file(home / "aliases.json", content, self._file_mode())
            with locked(self.root / ".lock"):
                _remove(self.root.glob(".generation-*"))
                replace_file(self.root / "generation", str(self.generation() + 1).encode(), self._file_mode())
        except OSError as error:
            raise RegistryError(f"cannot write to the registry {self.root}: {error.strerror}") from None

    def _file_mode(self) -> int:
        """Return the mode of files that the users of the registry can read."""
        return self.root.stat().st_mode & 0o666

    def generation(self) -> int:
        """Return a number that increases whenever an alias changes."""
        path = self.root / "generation"
        try:
            return int(path.read_bytes())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise RegistryError(f"cannot read {path}: {error}") from None

    def _claim(self, home: Path, staging: Path) -> int:
        version = 1 + max((int(child.name) for child in home.iterdir() if child.name.isdecimal()), default=0)
        while True:
            try:
                staging.rename(home / str(version))  # fails if the version exists, because its folder is never empty
            except OSError:
                if not (home / str(version)).is_dir():
                    raise
                version += 1
            else:
                return version

    def _aliases(self, name: str) -> dict[str, int]:
        path = self.root / name / "aliases.json"
        try:
            table = msgspec.json.decode(path.read_bytes(), type=AliasFile)
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as error:
            raise RegistryError(f"{path} is damaged: {error}") from None
        if table.format != FORMAT:
            raise RegistryError(f"{path} has registry format {table.format}; this release supports format {FORMAT}")
        return table.aliases

    def _unknown(self, name: str) -> ModelNotFound:
        names = ", ".join(self.models()) or "none (train one with `rowcast train`)"
        return ModelNotFound(f"unknown model {name!r} in {self.root}; available models: {names}")


def _clear(home: Path) -> None:
    """Delete the hidden folders of dead publishers. A live publisher keeps its folder's lock file locked."""
    for lock in home.glob(f"{STAGED}*.lock"):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
    owned = {lock.with_suffix("") for lock in home.glob(f"{STAGED}*.lock")}
    for folder in home.glob(f"{STAGED}*"):
        if folder not in owned and folder.suffix != ".lock":
            shutil.rmtree(folder, ignore_errors=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
