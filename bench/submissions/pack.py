"""Pack a row of a results folder as the zip of a submission."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench import __version__
from bench.spec.cell import TRANSFER
from bench.spec.submission import BOARD, CARD, CODE, CRATE, DESCRIPTION, MOST_BYTES, RESULTS, SCHEMA
from bench.store.manifest import Manifest, read_manifest
from bench.store.parts import CellRecord, stored
from bench.submissions.archive import write_zip
from bench.submissions.board_file import as_toml, board_of
from bench.submissions.card import card_problems
from bench.submissions.code import packed_code
from bench.submissions.packed_crate import packed_crate
from bench.submissions.reduced import reduce_to
from bench.submissions.submission import entries, files_of
from bench.submissions.tables import table_problems
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json
from defenses.zoo.cards import list_models


def pack_row(results: Path, label: str, out: Path, *, card: Path | None = None, code: Path | None = None) -> int:
    """Write the zip of a submission: results, card, board, code, metadata; the same row gives the same bytes.

    Args:
        results: the results folder.
        label: of the defense.
        out: the zip.
        card: its card; None: that of the registered defense.
        code: folder of code of one's own; None: the current folder.

    Returns:
        Number of files in the zip.

    Raises:
        UserError: no such defense, damaged results, tables that are too large, no card or an incomplete one, or code
            that is not there.
    """
    with tempfile.TemporaryDirectory() as temporary:
        reduced = Path(temporary) / RESULTS
        lines = reduce_to(results, label, reduced)
        stored_lines = [line for line, _ in stored(reduced / "parts").values()]
        if problem := next(table_problems(reduced, stored_lines), ""):
            raise UserError(f"{label} cannot be submitted: {problem}")
        manifest = read_manifest(reduced)
        files: dict[str, bytes | Path] = {f"{RESULTS}/{name}": file for name, file in files_of(reduced).items()}
        files[CARD] = _card(manifest, label, card)
        files[BOARD] = as_toml(_board(manifest, label, lines, results)).encode()
        files |= {f"{CODE}/{name}": content for name, content in packed_code(lines, code or Path()).items()}
        files[CRATE] = packed_crate(reduced, label, files)
        described = entries(files)
        if (total := sum(int(str(entry["size"])) for entry in described.values())) > MOST_BYTES:
            raise UserError(f"the row holds {total:,} bytes; a submission may have {MOST_BYTES:,}: run fewer images")
        files[DESCRIPTION] = (json.dumps(_about(manifest, label) | {"files": described}, indent=1) + "\n").encode()
        write_zip(out, files)
    return len(files)


def _card(manifest: Manifest, label: str, card: Path | None) -> bytes:
    """Return the card, which is complete."""
    if card is None:
        name = next((str(f.get("name")) for f in manifest["defenses"].values()), "")
        if name not in list_models():
            raise UserError(f"{label} is no registered defense, so it has no card; write one, and name it with --card")
        import defenses

        card = Path(defenses.__file__).parent / "cards" / f"{name}.toml"
    elif not card.is_file():
        raise UserError(f"there is no file {card}; give --card the card of the defense")
    if faults := list(card_problems(card, label)):
        raise UserError(*(f"{card}: {fault}" for fault in faults))
    return card.read_bytes()


def _board(manifest: Manifest, label: str, lines: list[CellRecord], results: Path) -> Json:
    try:
        board = board_of(manifest, label, lines)
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        raise UserError(f"{results} lacks what the keys of {label} are made of; run the board again") from None
    if "attack" not in board and TRANSFER not in board["nulls"]:
        raise UserError(f"{label} cannot be submitted: no attack was run on it in {results}")
    return board


def _about(manifest: Manifest, label: str) -> Json:
    """Return what submission.json says beside the files."""
    run = (manifest.get("runs") or [{}])[-1]
    parts = [part for f in manifest["defenses"].values() for part in (f, *f.get("around", ()))]
    return {
        "schema": SCHEMA,
        "label": label,
        "board": manifest.get("board"),
        "purebench": __version__,
        "commit": (run.get("git") or {}).get("commit"),
        "versions": run.get("versions") or {},
        "weights": {name: sha for part in parts for name, sha in (part.get("weights") or {}).items()},
    }
