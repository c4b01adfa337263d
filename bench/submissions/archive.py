"""Zips of submissions: the same bytes for the same files, and unpacked only where nothing in them does harm."""

from __future__ import annotations

import os
import stat
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bench.spec.submission import CODE, MOST_BYTES, MOST_FILES, MOST_RATIO, MOST_TEXT
from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors, make_folder

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell
_PIECE = 1 << 20  # bytes
_ENCRYPTED = 0x1
_FREE = 1 << 24  # bytes unpacked; a smaller zip may be of any ratio
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def write_zip(path: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write a zip whole or not at all: sorted names, one time, nothing compressed, so that its bytes are the files'.

    Args:
        path: the zip; an earlier one is replaced.
        files: contents, or the files that hold them, by name.

    Raises:
        UserError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file with --out, as row.zip")
    make_folder(path.parent, "choose another file with --out")
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with disk_errors(path.parent, "nothing was written"):
        try:
            with zipfile.ZipFile(temporary, "w") as archive:
                for name in sorted(files):
                    info = zipfile.ZipInfo(name, _TIME)
                    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                    content = files[name]
                    archive.writestr(info, content if isinstance(content, bytes) else content.read_bytes())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def unpack(path: Path, folder: Path) -> list[str]:
    """Write the files of a zip into a folder, unless something in it does harm.

    Args:
        path: the zip.
        folder: an empty folder.

    Returns:
        What does harm, a line each; where there is any, nothing is written.

    Raises:
        UserError: no such file, no zip, or a damaged one.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the zip that purebench submit pack wrote")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    with _readable(path), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if problems := [*_unsafe(entries, path.stat().st_size)]:
            return problems
        for entry in entries:
            if not entry.is_dir():
                _extract(archive, entry, folder)
    return []


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged zip into one line."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGED as error:
        text = f"{path} is no zip, or cut short or damaged ({error}); pack it again with purebench submit pack"
        raise UserError(text) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one file; no more bytes than its entry declares are read."""
    target = folder / entry.filename
    with disk_errors(folder, "nothing was added", "set TMPDIR to a folder with space"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, open(target, "xb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
    if target.stat().st_size != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} is shorter than its entry says")


def _unsafe(entries: Sequence[zipfile.ZipInfo], packed: int) -> Iterator[str]:
    """Yield what does harm in a zip of some bytes."""
    if len(entries) > MOST_FILES:
        yield f"it holds {len(entries):,} files; at most {MOST_FILES:,} are allowed"
        return
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        yield f"it unpacks to {total:,} bytes; at most {MOST_BYTES:,} are allowed"
    elif total > max(_FREE, MOST_RATIO * packed):
        yield f"it unpacks to {total / max(packed, 1):,.0f} times its size; at most {MOST_RATIO} are allowed"
    elif (parsed := sum(entry.file_size for entry in entries if _is_parsed(entry.filename))) > MOST_TEXT:
        yield f"its JSON and TOML have {parsed:,} bytes; at most {MOST_TEXT:,} are allowed"
    names: dict[str, str] = {}
    for entry in entries:
        if problem := _problem(entry):
            yield f"{entry.filename!r} {problem}"
            continue
        key = _folded(entry.filename)
        if key in names:
            yield f"{entry.filename!r} is there twice"
        names[key] = entry.filename
    for key, name in names.items():
        parents = PurePosixPath(key).parents
        if above := next((names[str(p)] for p in parents if str(p) in names and not names[str(p)].endswith("/")), None):
            yield f"{name!r} lies in {above!r}, which is a file"


def _is_parsed(name: str) -> bool:
    """Return True for a file that is parsed as a whole."""
    return name.endswith((".json", ".jsonl", ".toml")) and not name.startswith(f"{CODE}/")


def _folded(name: str) -> str:
    """Return a name as a disk may see it that tells no cases and forms of letters apart."""
    return unicodedata.normalize("NFC", name).casefold().rstrip("/")


def _problem(entry: zipfile.ZipInfo) -> str:
    """Return why an entry does harm; "" if it does not."""
    name, mode = entry.orig_filename, entry.external_attr >> 16
    parts = name.removesuffix("/").split("/")
    if not name.isprintable() or "\\" in name or ":" in name:
        return "has a name with a backslash, a colon or a control character"
    if name.startswith("/") or not {"", ".", ".."}.isdisjoint(parts):
        return "leads out of the folder, or has an empty part in its name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return "" if entry.compress_type in _METHODS else "is compressed by an unusual method"
