"""Pictures of images, which need the stored images, the data set and, for a trajectory, the model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from boards import purebench_here

import bench
from bench.figures.pictures import pictures
from defenses import load_model
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
LINF = RESULTS / "digits-linf"


@pytest.fixture
def changed(tmp_path):
    """A function that copies digits-linf with another fingerprint of adp."""

    def copied(**changes):
        folder = shutil.copytree(LINF, tmp_path / "copy", ignore=shutil.ignore_patterns("tables*", ".*"))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["defenses"]["adp"] |= changes
        manifest.pop("sum")  # of the manifest itself
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return copied


def test_a_grid_shows_the_strongest_attack():
    picture = bench.figure("adversarial-grid", LINF, defense="adp")
    row = bench.leaderboard(LINF).set_index("defense").loc["adp"]
    images = bench.load_images(LINF, "adp", row["worst_attack"], row["worst_view"])
    assert picture.numbers["image"].tolist() == images.index[:8].tolist()
    assert picture.numbers["shares"].tolist() == images.shares[:8].tolist()
    (sheet,) = picture.figure().axes[0].get_images()
    shown = np.asarray(sheet.get_array())
    assert shown.shape == (3 * 10, 8 * 10)
    assert np.array_equal(shown[11:19, 1:9], images.adversarial[0, 0])
    assert picture.alt.startswith(f"The first 8 images of adp under {row['worst_attack']} on digits-linf, Linf 1/5")
    assert picture.svg == bench.figure("adversarial-grid", LINF, defense="adp").svg


def test_a_trajectory_is_that_of_the_model():
    picture = bench.figure("trajectory", LINF, defense="ebm-mcmc")
    row = bench.leaderboard(LINF).set_index("defense").loc["ebm-mcmc"]
    image = bench.load_images(LINF, "ebm-mcmc", row["worst_attack"], row["worst_view"]).adversarial[0]
    path = bench.purification_trajectory(load_model("ebm-mcmc"), image)
    assert picture.numbers["value"].tolist() == path.values.tolist()
    assert picture.numbers["step"].tolist() == list(range(len(path.values)))
    assert picture.alt.endswith("after each step of its purification, and its energy.")


def test_a_defense_without_a_purifier_is_left_out_or_refused(caplog):
    assert {p.slug for p in pictures(LINF, only=["trajectory"])} == {"trajectory-adp", "trajectory-ebm-mcmc"}
    told = [record.message for record in caplog.records if "trajectory of" in record.message]
    assert [text.split()[3] for text in told] == ["pgd-at:", "undefended:"]
    assert "no more the defense" not in caplog.text
    with pytest.raises(UserError, match="pgd-at is no purifier before a classifier, so that it has no trajectory"):
        bench.figure("trajectory", LINF, defense="pgd-at")


@pytest.mark.parametrize(
    ("fingerprint", "words"),
    [
        ({"name": "gone"}, "adp cannot be loaded: .*gone"),
        ({"name": "mine.py:Mine", "state": "0a"}, "adp cannot be loaded: its file .*mine.py is not there"),
        ({"name": "net", "state": "0a", "class": "Net"}, "adp cannot be loaded: it was a Net in memory"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line(changed, tmp_path, fingerprint, words):
    folder = changed(**fingerprint)
    with pytest.raises(UserError, match=words) as caught:
        bench.figure("trajectory", folder, defense="adp", code=tmp_path)
    assert "\n" not in str(caught.value)
    assert bench.figure("adversarial-grid", folder, defense="adp").svg  # needs no model


def test_another_model_than_that_of_the_results_is_told(changed, caplog):
    folder = changed(version="0")
    assert bench.figure("trajectory", folder, defense="adp").svg
    assert "adp is no more the defense of the results (version: 0 then, 1 now)" in caplog.text


def test_the_command_without_stored_images_writes_nothing(changed, tmp_path):
    folder = changed()
    for file in folder.glob("parts/*adp*/adversarial.safetensors"):
        file.unlink()
    words = ("figures", folder, "--only", "adversarial-grid", "ranks", "--out", tmp_path / "out")
    told = purebench_here(*words, "--defense", "adp")
    assert (told.returncode, told.stderr.count("\n"), (tmp_path / "out").exists()) == (2, 1, False)
    assert "lacks adversarial.safetensors" in told.stderr
    told = purebench_here(*words)
    assert (told.returncode, len(list((tmp_path / "out").iterdir()))) == (0, 4)  # three grids and the ranks
    assert told.stderr.count("warning: adversarial-grid of adp:") == 1


def test_torch_is_imported_only_if_a_picture_of_images_is_named():
    code = (
        "import sys; from bench.figures.pictures import pictures; "
        f"print(len([p.svg for p in pictures({str(LINF)!r}, only=['ranks', 'attacks'])]), 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["5", "False"]
