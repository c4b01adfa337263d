"""`purebench verify`: what is stored is judged again; every change is told, and nothing is written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from boards import MODELS, ROOT, purebench_here, write_board

from bench.audit.reproduction.rebuild import rebuild_cell
from bench.store.reader import read_folder


def tree(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with models.py and out/, the results of a board on an .npz of a user's own."""
    from defenses.data.dataset import load_dataset

    folder = tmp_path_factory.mktemp("verify")
    data = load_dataset("digits")
    np.savez(folder / "mine.npz", x=data.x[:40].numpy(), y=data.y[:40].numpy(), num_classes=10)
    path = write_board(folder)
    text = path.read_text().replace('dataset = "digits"', f'dataset = "{folder}/mine.npz"').replace("first-60", "all")
    text = text.replace(
        "[[attack]]",
        f'[[defense]]\nname = "{folder}/models.py:GlobalNoise"\nlabel = "random"\nstochastic = true\n\n[[attack]]',
        1,
    )
    path.write_text(text)
    assert purebench_here("run", path, "--out", folder / "out", "--quiet").returncode == 0
    return folder


@pytest.fixture
def copy(done, tmp_path):
    """Copies of its models and results."""
    shutil.copytree(done / "out", tmp_path / "out")
    shutil.copy(done / "models.py", tmp_path)
    return tmp_path


def verify(folder, *arguments):
    return purebench_here("verify", folder / "out", "--quiet", "--code", folder, *arguments)


def last(result):
    return result.stdout.splitlines()[-1]


def test_everything_agrees_and_nothing_is_written(copy):
    before = tree(copy / "out")
    result = verify(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert last(result) == (
        "24 of 24 cells agree in every draw, 0 differ only where the top-two margin is under 1e-05 "
        "(or a score that near to the detector's threshold), 0 differ"
    )
    assert "margins equal" in result.stdout
    assert tree(copy / "out") == before


def test_a_read_only_folder_and_a_sample(copy):
    for path in [copy / "out", *(copy / "out").rglob("*")]:
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    result = verify(copy, "--sample", 3, "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0
    assert found["agrees"]
    assert found["agree"] == found["cells"] == 24
    images = {(row["defense"], row["attack"]): row["images"] for row in found["rows"]}
    assert images["noisy", "slow"] == 6
    assert images["random", "slow"] == 40  # it draws for whole blocks
    for path in [copy / "out", *(copy / "out").rglob("*")]:
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


def test_one_defense_and_an_unknown_one(copy):
    assert last(verify(copy, "--defense", "linear")).startswith("8 of 8 cells agree in every draw")
    result = verify(copy, "--defense", "linaer")
    assert result.returncode == 2
    assert "did you mean linear" in result.stderr


def test_a_changed_model_is_told(copy):
    (copy / "models.py").write_text(MODELS.replace("10 * means", "9 * means"))
    result = verify(copy, "--defense", "linear")
    assert result.returncode == 2
    assert "found: linear is not the defense that was judged: state: " in result.stdout
    assert "found: linear is not the defense that was judged: code: " in result.stdout
    assert "accuracy " in result.stdout
    assert ", 0 differ;" not in last(result)
    told = (
        "; linear changed, so this tells nothing of the numbers on record: verify with the weights or the code of then"
    )
    assert last(result).endswith(f"{told} (--weights-root, --code), or run the board again for those of today")


def test_a_model_that_is_gone_does_not_agree(copy):
    (copy / "models.py").unlink()
    result = verify(copy)
    assert result.returncode == 2
    assert "found: noisy cannot be rebuilt: its file" in result.stdout
    assert last(result).startswith("0 of 24 cells agree in every draw")
    assert last(result).endswith("24 could not be judged")


def test_changed_data_are_told(copy, done):
    with np.load(done / "mine.npz") as held:
        x, y = held["x"].copy(), held["y"].copy()
    x[2, 0, 4, 4] = 1 - x[2, 0, 4, 4]
    root = copy / "data"
    root.mkdir()
    np.savez(root / "mine.npz", x=x, y=y, num_classes=10)
    for path in [copy / "out" / "plan.jsonl", *(copy / "out").rglob("cells.jsonl")]:
        path.write_text(path.read_text().replace(f"{done}/mine.npz", f"{root}/mine.npz"))
    for part in (copy / "out" / "parts").iterdir():
        reseal(part)
    result = verify(copy, "--defense", "linear")
    assert result.returncode == 2
    assert "mine.npz test: image 2 or its label is not the one that was judged" in result.stdout
    assert "revision" in result.stdout
    assert "in box, ball or status" in result.stdout  # its distance is another


def reseal(part: Path) -> None:
    """Checksums of what is there now: what changed the part knew them."""
    sums = json.loads((part / "checksums.json").read_text())
    sums = {name: hashlib.sha256((part / name).read_bytes()).hexdigest() for name in sums}
    (part / "checksums.json").write_text(json.dumps(sums))


@pytest.mark.parametrize("name", ["adversarial.safetensors", "records.parquet", "cells.jsonl", "checksums.json"])
def test_damaged_parts_are_told_and_the_others_judged(copy, name):
    part = next((copy / "out" / "parts").glob("all-noisy-*"))
    raw = bytearray((part / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (part / name).write_bytes(raw)
    result = verify(copy)
    assert result.returncode == 2
    assert f"found: {part.name}: " in result.stdout
    assert last(result).startswith("16 of 16 cells agree in every draw")


def test_records_that_were_tampered_with_differ(copy):
    """One count of one image, with checksums that fit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = next((copy / "out" / "parts").glob("all-linear-*"))
    table = pq.ParquetFile(part / "records.parquet").read()
    correct = table["correct"].to_numpy().copy()
    correct[7] = 1 - correct[7]
    at = table.column_names.index("correct")
    table = table.set_column(at, "correct", pa.array(correct, table["correct"].type))
    pq.write_table(table, part / "records.parquet")
    reseal(part)
    result = verify(copy, "--defense", "linear")
    assert result.returncode == 2
    assert last(result).startswith("7 of 8 cells agree in every draw, 0 differ only")
    assert last(result).endswith("1 differ")


def test_an_identity_that_does_not_give_its_key(copy):
    part = next((copy / "out" / "parts").glob("all-linear-*"))
    path = part / "cells.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace('"seed": 0', '"seed": 1')
    path.write_text("\n".join(lines) + "\n")
    reseal(part)
    result = verify(copy, "--defense", "linear")
    assert result.returncode == 2
    assert "is not what its key was made of" in result.stdout


def test_other_versions_are_told_and_are_no_difference(copy):
    path = copy / "out" / "manifest.json"
    content = json.loads(path.read_text())
    content["runs"][0]["versions"]["torch"] = "1.0"
    content.pop("sum", None)
    path.write_text(json.dumps(content))
    result = verify(copy, "--defense", "linear")
    assert result.returncode == 0
    assert "environment: torch 1.0 then, " in result.stdout


def test_no_results(tmp_path):
    result = purebench_here("verify", tmp_path)
    assert result.returncode == 2
    assert "no results folder" in result.stderr


def test_every_committed_cell_can_be_rebuilt():
    rebuilt = 0
    for folder in sorted({path.parent.parent.parent for path in (ROOT / "results").glob("*/parts/*/cells.jsonl")}):
        for line in read_folder(folder, lambda lines, _: lines):
            if line["status"] == "ok":
                assert rebuild_cell(line) is not None, (folder.name, line["defense"], line["attack"], line["view"])
                rebuilt += 1
    assert rebuilt > 1000


@pytest.mark.slow
def test_the_committed_run():
    """Deterministic defenses whole, purifiers on samples."""
    whole = purebench_here("verify", ROOT / "results" / "digits-linf", "--defense", "pgd-at", "undefended", "--quiet")
    sampled = purebench_here("verify", ROOT / "results" / "digits-linf", "--defense", "adp", "--sample", 2, "--quiet")
    for result, cells in ((whole, 85), (sampled, 50)):
        assert result.returncode == 0, result.stdout
        assert f" of {cells} cells agree in every draw" in last(result)
        assert last(result).endswith(", 0 differ")
