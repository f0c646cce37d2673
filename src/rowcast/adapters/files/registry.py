"""A registry in a folder.

    NAME/VERSION/        a bundle
    NAME/aliases.json    the aliases of a model, and their latest move
    NAME/aliases.log     all moves of the aliases, one JSON object per line
    NAME/last_version    the highest version number that was ever used
    generation           the number of alias changes

Every change is an atomic rename, except that moves are appended to the log. The registry therefore works in any local
or NFS folder, and no crash can damage it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rowcast.adapters.files import alias_log
from rowcast.adapters.files.replacement import replace_file, sync
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.private_files import locked, make_private_folder
from rowcast.registry.alias_log import LOG_FORMAT, AliasMove
from rowcast.registry.names import NAME_RULE, check_alias, check_name
from rowcast.registry.ports import Reference
from rowcast.suggestions import did_you_mean

FORMAT = 1
STAGED = ".new-"
LAST_VERSION = "last_version"


class AliasFile(msgspec.Struct, omit_defaults=True):
    """The contents of `aliases.json`."""

    format: int
    aliases: dict[str, int]
    last: AliasMove | None = None
    """The latest move. If a writer is killed before it appends the move to the log, the next writer appends it."""


class FolderRegistry:
    """The registry in one folder. The first publication creates the folder. `who` is the user name recorded in the
    logs.
    """

    def __init__(self, root: Path, who: str = "unknown") -> None:
        self.root = root
        self._who = who

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
        return self._alias_file(name).aliases

    def log(self, name: str) -> Sequence[AliasMove]:
        """Return every move of the model's aliases, oldest first; raise ModelNotFound if the model is unknown."""
        self.aliases(name)
        home = self.root / name
        try:
            return alias_log.read(home / alias_log.NAME, self._alias_file(name).last)
        except OSError as error:
            raise RegistryError(f"cannot read {home / alias_log.NAME}: {error.strerror}") from None

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

    def publish(
        self,
        name: str,
        fill: Callable[[Path], None],
        alias: str | None = None,
        *,
        reason: str = "",
        expected: int | None = None,
    ) -> Reference:
        """Call `fill` on a hidden folder, then rename the folder to the next version number.

        All users who can read the registry can read the bundle.
        """
        home = self.root / check_name(name)
        if alias is not None:
            check_alias(alias)
        try:
            with self._staging(home) as staging:
                fill(staging)
                mode = stat.S_IMODE(self.root.stat().st_mode)
                staging.chmod(mode)
                for path in staging.iterdir():
                    path.chmod(mode & 0o666)
                    sync(path)
                sync(staging)
                with locked(home / ".lock"):
                    if alias is not None:
                        self._check_expected(name, alias, expected)
                    reference = Reference(name, self._claim(home, staging))
                    sync(home)
                    if alias is not None:
                        self._move_or_withdraw(reference, alias, reason)
        except OSError as error:
            message = f"cannot write a bundle for {name} to {home}: {error.strerror}; nothing was published"
            raise RegistryError(message) from None
        if alias is not None:
            self._increment_generation()
        return reference

    def _move_or_withdraw(self, reference: Reference, alias: str, reason: str) -> None:
        """Point the alias at the new version; if this fails, delete the version. The caller holds the model's lock."""
        try:
            self._move(reference, alias, reason=reason)
        except (OSError, RegistryError) as error:
            if self._alias_file(reference.name).aliases.get(alias) == reference.version:
                raise RegistryError(
                    f"{reference} was published as {alias}, but then an error occurred: {error}"
                ) from None
            shutil.rmtree(self.root / reference.name / str(reference.version), ignore_errors=True)
            raise

    @contextmanager
    def _staging(self, home: Path) -> Iterator[Path]:
        """Yield a hidden folder, and delete it afterward. A lock shows other publishers that the folder is in use."""
        try:
            make_private_folder(self.root)
            with locked(self.root / ".lock"):
                if not home.exists():
                    home.mkdir()
                    home.chmod(stat.S_IMODE(self.root.stat().st_mode))
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

    def point(
        self,
        reference: Reference,
        alias: str,
        *,
        reason: str = "",
        expected: int | None = None,
        rollback: bool = False,
    ) -> None:
        """Point an alias at this version. Readers see either the old or the new aliases."""
        check_alias(alias)
        self.folder(reference)
        try:
            with locked(self.root / reference.name / ".lock"):
                self.folder(reference)  # another process could have deleted the version
                self._check_expected(reference.name, alias, expected)
                self._move(reference, alias, reason=reason, rollback=rollback)
        except OSError as error:
            raise RegistryError(f"cannot write to the registry {self.root}: {error.strerror}") from None
        self._increment_generation()

    def _move(self, reference: Reference, alias: str, *, reason: str, rollback: bool = False) -> None:
        """Write the new aliases and the log. The caller holds the model's lock."""
        home = self.root / reference.name
        _remove(home.glob(".aliases.json-*"))  # left by dead writers: a live writer would hold the lock
        before = self._alias_file(reference.name)
        log = home / alias_log.NAME
        alias_log.complete(log, before.last, self._file_mode())
        if before.aliases.get(alias) == reference.version:
            return
        move = AliasMove(
            format=LOG_FORMAT,
            number=alias_log.next_number(log, before.last),
            time=_now(),
            who=self._who,
            alias=alias,
            source=before.aliases.get(alias),
            target=reference.version,
            reason=reason,
            rollback=rollback,
        )
        aliases = {**before.aliases, alias: reference.version}
        after = AliasFile(FORMAT, dict(sorted(aliases.items())), move)
        replace_file(home / "aliases.json", msgspec.json.encode(after), self._file_mode())
        with suppress(OSError):  # the alias has moved, and the next writer appends the move
            alias_log.complete(log, move, self._file_mode())

    def _check_expected(self, name: str, alias: str, expected: int | None) -> None:
        current = self._alias_file(name).aliases.get(alias, 0)
        if expected is not None and current != expected:
            now = f"now points to version {current}" if current else "no longer exists"
            raise RegistryError(
                f"the alias {alias!r} of {name!r} was moved by another process; it {now}", slug="alias-moved"
            )

    def _increment_generation(self) -> None:
        try:
            with locked(self.root / ".lock"):
                _remove(self.root.glob(".generation-*"))
                replace_file(self.root / "generation", str(self.generation() + 1).encode(), self._file_mode())
        except OSError as error:
            raise RegistryError(f"cannot write to the registry {self.root}: {error.strerror}") from None

    def _file_mode(self) -> int:
        """Return the mode for new files: the registry folder's permissions without the execute bits."""
        return self.root.stat().st_mode & 0o666

    def require_unused(self, reference: Reference) -> None:
        """Raise RegistryError if an alias points at this version."""
        aliases = [alias for alias, version in self.aliases(reference.name).items() if version == reference.version]
        if aliases:
            raise RegistryError(
                f"{reference} cannot be deleted, because an alias points to it: {', '.join(aliases)}; move the alias "
                f"first with `rowcast models promote {reference.name}@VERSION --alias {aliases[0]}`",
                slug="version-in-use",
            )

    def delete(self, reference: Reference) -> None:
        """Hide a version by renaming its folder, then delete the folder. The next publisher deletes any remaining
        files.
        """
        folder = self.folder(reference)
        home = self.root / reference.name
        try:
            with locked(home / ".lock"):
                self.require_unused(reference)
                self._record_version(home, self._highest(home))
                hidden = home / f"{STAGED}{secrets.token_hex()}"
                folder.rename(hidden)
                sync(home)
            shutil.rmtree(hidden, ignore_errors=True)
        except FileNotFoundError:
            self.folder(reference)  # raises ModelNotFound if another process deleted the version
            raise
        except OSError as error:
            raise RegistryError(f"cannot delete {reference} from {self.root}: {error.strerror}") from None

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
        """Rename the staged folder to the next version number; return the number. The caller holds the model's lock."""
        version = self._highest(home) + 1
        while True:
            self._record_version(home, version)
            try:
                # fails if the version exists, because its folder is never empty
                staging.rename(home / str(version))
            except OSError:
                if not (home / str(version)).is_dir():
                    raise
                version += 1  # published by a release that does not lock the folder
            else:
                return version

    def _highest(self, home: Path) -> int:
        """Return the highest version number that was ever used, or 0."""
        path = home / LAST_VERSION
        try:
            recorded = int(path.read_bytes())
        except FileNotFoundError:
            recorded = 0
        except ValueError as error:
            raise RegistryError(f"{path} is damaged: {error}; delete this file") from None
        return max([recorded, *(int(child.name) for child in home.iterdir() if child.name.isdecimal())])

    def _record_version(self, home: Path, version: int) -> None:
        _remove(home.glob(f".{LAST_VERSION}-*"))
        replace_file(home / LAST_VERSION, str(version).encode(), self._file_mode())

    def _alias_file(self, name: str) -> AliasFile:
        path = self.root / name / "aliases.json"
        try:
            table = msgspec.json.decode(path.read_bytes(), type=AliasFile)
        except FileNotFoundError:
            return AliasFile(FORMAT, {})
        except msgspec.MsgspecError as error:
            raise RegistryError(f"{path} is damaged: {error}") from None
        if table.format != FORMAT:
            raise RegistryError(f"{path} has registry format {table.format}; this release supports format {FORMAT}")
        return table

    def _unknown(self, name: str) -> ModelNotFound:
        names = tuple(self.models())
        available = ", ".join(names) or "none (train one with `rowcast train`)"
        hint = " ".join(filter(None, [did_you_mean(name, names), f"available models: {available}"]))
        return ModelNotFound(f"unknown model {name!r} in {self.root}; {hint}")


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
