"""Labels with HTML, scripts, marks of reading direction, paths and 200 characters: packed, checked, added, harmless."""

import json
import shutil
import unicodedata

import pytest
from boards import purebench_here
from fake_board import HOSTILE
from submitted import LABEL, read_zip, tree

from bench import leaderboard
from bench.store.manifest import read_manifest
from bench.store.parts import sha256
from bench.submissions.add import KEPT
from defenses.utils.checksums import with_checksum

ATTACK = f"../{HOSTILE}"


def renamed(source, folder, label=""):
    """A copy of a results folder with hostile labels of an attack and, if given, of the submitted defense."""
    shutil.copytree(source, folder)
    new = {LABEL: label or LABEL, "slow": ATTACK}
    lines = [json.loads(line) for line in (folder / "plan.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {key: new.get(line[key], line[key]) for key in ("defense", "attack")}
    (folder / "plan.jsonl").write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    manifest = read_manifest(folder)
    defenses = {new.get(name, name): fingerprint for name, fingerprint in manifest["defenses"].items()}
    manifest = {**manifest, "defenses": defenses, "plan": sha256(folder / "plan.jsonl")}
    manifest.pop("sum", None)
    (folder / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
    return folder


def is_harmless(text):
    return not [c for c in text if c != "\n" and unicodedata.category(c)[0] == "C"]


@pytest.mark.parametrize(
    "label", [HOSTILE, "../../etc/passwd", "x" * 200, "\u202eevil", "=1+1"], ids=["html", "path", "long", "rtl", "sum"]
)
def test_a_row_of_a_hostile_label_is_added_and_does_no_harm(made, tmp_path, label):
    whole, board = renamed(made / "whole", tmp_path / "whole", label), renamed(made / "board", tmp_path / "board")
    before, out = tree(whole), tmp_path / "row.zip"
    options = ("--out", out, "--code", made, "--card", made / "card.toml")
    said = [purebench_here("submit", "pack", whole, "--defense", label, *options)]
    assert (said[0].returncode, said[0].stderr) == (0, "")
    assert not [name for name in read_zip(out) if name.startswith("/") or ".." in name or not name.isprintable()]
    graph = json.loads(read_zip(out)["ro-crate-metadata.json"])["@graph"]
    assert not [e["@id"] for e in graph if ".." in e["@id"] or "<" in e["@id"] or not e["@id"].isprintable()]
    assert all(is_harmless(value) for e in graph for value in e.values() if isinstance(value, str))
    said += [purebench_here("submit", "check", out, "--to", board)]
    assert said[-1].returncode == 0, said[-1].stdout
    beside = sorted(tmp_path.iterdir())
    said += [purebench_here("submit", "add", out, "--to", board)]
    assert (said[-1].returncode, said[-1].stderr) == (0, "")
    assert all(is_harmless(done.stdout) for done in said)
    assert (sorted(tmp_path.iterdir()), tree(whole)) == (beside, before)
    assert not (made / "imported").exists()
    rows = leaderboard(board)
    assert sorted(rows["defense"]) == sorted(["linear", label])
    assert len([folder for folder in (board / KEPT).iterdir() if folder.is_dir()]) == 1
    for file in board.glob("tables.*"):
        text = file.read_text()
        assert is_harmless(text)
        assert "<script>alert" not in text or file.suffix in (".txt", ".csv")
