"""A submission of a random defense in a file of one's own, and changed copies of its zip."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
from boards import BOARD, purebench_here, write_board
from safetensors.numpy import load, save

from bench.store.audits import VERSION, write_audits
from bench.store.manifest import read_manifest
from bench.submissions.archive import write_zip
from defenses.utils.checksums import with_checksum

LABEL = "noisy"
CARD = """
title = "Jitter"
authors = "A. Nonymous"
venue = ""
url = ""
licence = "MIT"
summary = "Noise before a linear classifier."

[[claims]]
kind = "claim"
dataset = "digits"
threat = "Linf 1/10"
robust = "0.9"
attack = "PGD"
source = "its table 1"
evidence = "paper"
n = 1000
"""
NOISY = BOARD[BOARD.index('[[defense]]\nname = "{models}:noisy"') : BOARD.index("[[attack]]")]


def audit(fingerprint, **more):
    """An audit as `purebench audit` stores it."""
    finding = {
        "check": "zero gradients",
        "status": "pass",
        "evidence": "none",
        "numbers": {},
        "images": [],
        "plot": None,
    }
    about = {
        "label": LABEL,
        "fingerprint": fingerprint,
        "dataset": "digits",
        "norm": "Linf",
        "eps": "1/10",
        "images": 12,
    }
    about |= {"budget": "quick", "seed": 0, "key": "0", "version": VERSION}
    return about | {"passed": True, "failed": [], "findings": [finding]} | more


def folders(folder: Path) -> Path:
    """Write whole/ (both defenses), board/ (one of them), models.py, which marks each import, card.toml and row.zip."""
    text = BOARD.replace("first-60", "first-12")
    for name, board in (("whole", text), ("board", text.replace(NOISY, ""))):
        path = write_board(folder, board)
        with (folder / "models.py").open("a") as file:
            file.write(f'\nopen({str(folder / "imported")!r}, "a").close()\n')
        assert purebench_here("run", path, "--out", folder / name, "--quiet", "--workers", 0).returncode == 0
    (folder / "whole/audit").mkdir()
    write_audits(folder / "whole", [audit(read_manifest(folder / "whole")["defenses"][LABEL])])
    (folder / "card.toml").write_text(CARD)
    assert (folder / "imported").is_file()
    (folder / "imported").unlink()
    result = pack(folder, folder / "row.zip")
    assert result.returncode == 0, result.stderr
    return folder


def pack(folder, out, *more, defense=LABEL, card="card.toml"):
    options = ("--defense", defense, "--out", out, "--code", folder, *more)
    return purebench_here("submit", "pack", folder / "whole", *options, *(("--card", folder / card) if card else ()))


def read_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def the_part(files: dict[str, bytes], name: str) -> str:
    """Name of a file of the only part."""
    (found,) = [path for path in files if path.startswith("results/parts/") and path.endswith(name)]
    return found


def with_lines(files, change, *names):
    """Change each line of plan and cells."""
    for path in names or ("results/plan.jsonl", the_part(files, "cells.jsonl")):
        lines = [json.loads(line) for line in files[path].decode().splitlines()]
        for line in lines:
            change(line)
        files[path] = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def with_table(files, name, change):
    """Change a Parquet file, as a frame."""
    path = the_part(files, name)
    table = pq.read_table(io.BytesIO(files[path]))
    frame = change(table.to_pandas())
    out = io.BytesIO()
    pq.write_table(table.from_pandas(frame, schema=table.schema, preserve_index=False), out)
    files[path] = out.getvalue()


def with_images(files, change):
    """Change the adversarial images: arrays by key of the cell."""
    path = the_part(files, ".safetensors")
    images = {key: array.copy() for key, array in load(files[path]).items()}
    change(images)
    files[path] = save(images)


def sealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files with the checksums that a forger would write: of parts, plan, manifest, crate and zip."""

    def sha(content):
        return hashlib.sha256(content).hexdigest()

    part = the_part(files, "checksums.json").rpartition("/")[0]
    inside = {path.rpartition("/")[2]: sha(c) for path, c in files.items() if path.startswith(f"{part}/")}
    files[f"{part}/checksums.json"] = json.dumps({n: s for n, s in inside.items() if n != "checksums.json"}).encode()
    manifest = json.loads(files["results/manifest.json"]) | {"plan": sha(files["results/plan.jsonl"])}
    manifest.pop("sum", None)
    files["results/manifest.json"] = json.dumps(with_checksum(manifest)).encode()
    described = json.loads(files["ro-crate-metadata.json"])
    others = [entity for entity in described["@graph"] if entity["@type"] != "File"]
    inside = {n: c for n, c in files.items() if n not in ("ro-crate-metadata.json", "submission.json")}
    about = [
        {"@id": quote(n), "@type": "File", "sha256": sha(c), "contentSize": str(len(c))} for n, c in inside.items()
    ]
    files["ro-crate-metadata.json"] = json.dumps(described | {"@graph": [*others, *about]}).encode()
    about = json.loads(files["submission.json"])
    listed = {n: {"sha256": sha(c), "size": len(c)} for n, c in sorted(files.items()) if n != "submission.json"}
    return files | {"submission.json": json.dumps(about | {"files": listed}).encode()}


def changed(source: Path, out: Path, *changes, seal=True) -> Path:
    """Write a changed copy of a zip.

    Args:
        source: the zip.
        out: the copy.
        *changes: functions of the files by name, which they change.
        seal: write checksums that fit.
    """
    files = read_zip(source)
    for change in changes:
        change(files)
    write_zip(out, sealed(files) if seal else files)
    return out


def tree(folder):
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def findings(zipped, *more):
    done = purebench_here("submit", "check", zipped, *more)
    assert done.returncode == 1, done.stdout + done.stderr
    return [line.removeprefix("fails: ") for line in done.stdout.splitlines() if line.startswith("fails: ")]


def refused(zipped, board):
    """The line by which `add` refuses a zip; nothing has changed, and nothing lies beside the board."""
    before, beside = tree(board), sorted(board.parent.iterdir())
    done = purebench_here("submit", "add", zipped, "--to", board)
    assert (done.returncode, done.stdout) == (2, "")
    assert (tree(board), sorted(board.parent.iterdir())) == (before, beside)
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def made_of(path, *names, **attributes):
    """A zip of small files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, b"x")
    return path
