"""Generated corruptions: what each does, that it is the same every time, and the table."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from boards import ROOT
from skimage.util import random_noise

from bench.board.defense_entry import Candidate
from bench.cli.main import main
from bench.evaluation.verdict import verdict
from bench.plots import corruptions
from bench.store.environment import versions
from bench.store.manifest import read_manifest
from bench.tracks.corruptions.run import CorruptionJob
from bench.tracks.corruptions.tables import load_corruptions
from defenses import load_model
from defenses.core.noise import Noise
from defenses.data.corruptions import corrupt
from defenses.data.dataset import clean_name, dataset_info, load_dataset
from defenses.data.sources.corrupted import CORRUPTIONS
from defenses.utils.errors import UserError
from defenses.utils.parameters import canonical


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_harm_grows_with_severity_and_is_the_same_every_time(kind):
    clean = load_dataset("digits", "validation")
    before, moved = clean.x.clone(), []
    for severity in "12345":
        data = load_dataset(f"corrupted:digits/{kind}/{severity}", "validation")
        assert torch.equal(data.x, load_dataset(f"corrupted:digits/{kind}/{severity}", "validation").x)
        assert data.x.dtype == torch.float32
        assert 0 <= float(data.x.min()) <= float(data.x.max()) <= 1
        assert torch.equal(data.y, clean.y)
        moved.append(float((data.x - clean.x).square().mean()))
    assert moved == sorted(moved)
    assert moved[0] > 0
    assert torch.equal(clean.x, before)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 64, 48)])
def test_an_image_has_the_same_bits_in_any_company(kind, shape):
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    noise, level = Noise.of(0, 40), CORRUPTIONS[kind][2]
    whole = corrupt(kind, x, noise, level)
    for rows in (torch.tensor([3]), torch.tensor([30, 1, 17])):
        assert torch.equal(corrupt(kind, x[rows], noise.rows(rows), level), whole[rows])


def test_noise_has_the_moments_of_its_law():
    x = torch.full((2000, 1, 8, 8), 0.4)
    noise = Noise.of(0, 2000)
    gaussian = corrupt("gaussian_noise", x, noise, 0.1)
    assert float(gaussian.std()) == pytest.approx(0.1, rel=0.02)
    shot = corrupt("shot_noise", x, noise, 60)
    assert float(shot.mean()) == pytest.approx(0.4, abs=0.002)
    assert float(shot.var()) == pytest.approx(0.4 / 60, rel=0.03)
    theirs = random_noise(x.numpy(), "s&p", rng=0, amount=0.1)
    ours = corrupt("impulse_noise", x, noise, 0.1).numpy()
    for value in (0, 1):
        assert np.mean(ours == value) == pytest.approx(np.mean(theirs == value), abs=0.004)


def test_deterministic_corruptions_have_their_closed_forms():
    noise = Noise.of(0, 1)
    x = torch.linspace(0.2, 0.6, 64).view(1, 1, 8, 8)
    torch.testing.assert_close(corrupt("brightness", x, noise, 0.1), x + 0.1)
    half = corrupt("contrast", x, noise, 0.5)
    assert float(half.mean()) == pytest.approx(float(x.mean()))
    assert float(half.std()) == pytest.approx(0.5 * float(x.std()))
    flat = torch.full((1, 3, 32, 32), 100 / 255)
    for kind in ("gaussian_blur", "motion_blur", "pixelate", "jpeg_compression"):
        torch.testing.assert_close(corrupt(kind, flat, noise, CORRUPTIONS[kind][4]), flat, atol=0.006, rtol=0)


def test_black_pixels_have_no_shot_noise():
    black = torch.zeros(3, 1, 8, 8)
    assert torch.equal(corrupt("shot_noise", black, Noise.of(0, 3), 6), black)


def test_names_and_what_they_are_for():
    info = dataset_info("corrupted:digits/contrast/3")
    assert info.splits == {"validation": 297, "test": 500}
    assert info.revision.endswith("-corrupted2")
    assert clean_name("corrupted:digits/contrast/3") == "digits"
    assert clean_name("corrupted:own/images.npz/contrast/3") == "own/images.npz"
    assert clean_name("cifar10-c/fog/3") == "cifar10"
    assert clean_name("digits") == "digits"
    known = load_model("pgd-at", "corrupted:digits/contrast/3")
    assert vars(known)["provenance"].fingerprint == vars(load_model("pgd-at"))["provenance"].fingerprint


def test_any_data_set_can_be_corrupted(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(4))
    data = load_dataset(f"corrupted:{tmp_path / 'own.npz'}/pixelate/5")
    assert data.x.shape == (4, 3, 12, 12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corrupted:digits", "name the data set, the corruption and the severity"),
        ("corrupted:digits/contrasts/3", "did you mean contrast"),
        ("corrupted:digits/contrast/6", "the severity is 6; it must be 1, 2, 3, 4 or 5"),
        ("corrupted:digit/contrast/3", "did you mean digits"),
    ],
)
def test_bad_names_are_one_clear_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="has no train split"):
        load_dataset("corrupted:digits/contrast/3", "train")


def undefended():
    return Candidate("undefended", {}, lambda: load_model("undefended"))


def run(out, *arguments: str) -> int:
    given = ["--corruptions", "contrast", "impulse_noise", "--severities", "1", "5", "--indices", "first-40", "--quiet"]
    return main(["corruptions", "undefended", "gaussian-noise", "--draws", "2", "--out", str(out), *given, *arguments])


def test_the_table_agrees_with_the_images(tmp_path, capsys):
    assert run(tmp_path) == 0
    rows = {(r["defense"], r["corruption"], r["severity"]): r for r in load_corruptions(tmp_path).to_dict("records")}
    data, model = load_dataset("corrupted:digits/contrast/5"), load_model("undefended")
    right = float((model(data.x[:40]).argmax(1) == data.y[:40]).float().mean())
    assert rows["undefended", "contrast", "5"]["accuracy"] == pytest.approx(right)
    both = [rows["undefended", "contrast", s]["accuracy"] for s in ("1", "5")]
    assert rows["undefended", "contrast", "mean"]["accuracy"] == pytest.approx(sum(both) / 2)
    assert rows["undefended", "clean", "0"]["accuracy"] > rows["undefended", "mean", "mean"]["accuracy"]
    assert rows["gaussian-noise", "clean", "0"]["images"] == 40
    assert "mean over severities" in capsys.readouterr().out
    assert (tmp_path / "tables.md").read_text().count("## ") == 3
    assert (tmp_path / "tables.csv").read_text().startswith("defense,corruption,severity,images,draws,accuracy,low")


def test_means_over_other_sets_are_not_set_beside_each_other(tmp_path, capsys):
    """The second defense joins with the mildest severity alone."""
    given = ["--corruptions", "contrast", "--indices", "first-20", "--quiet", "--draws", "1", "--out", str(tmp_path)]
    assert main(["corruptions", "undefended", "--severities", "1", "5", *given]) == 0
    assert main(["corruptions", "gaussian-noise", "--severities", "1", *given]) == 0
    frame = load_corruptions(tmp_path).set_index(["defense", "corruption", "severity"])
    means = [("contrast", "mean"), ("mean", "mean")]
    assert frame.loc[[("undefended", *at) for at in means], "accuracy"].notna().all()
    missing = frame.loc[[("gaussian-noise", *at) for at in means], ["accuracy", "low", "high", "rejected"]]
    assert missing.isna().all(axis=None)
    assert frame.loc[("gaussian-noise", "contrast", "1"), "accuracy"] > 0
    text = (tmp_path / "tables.md").read_text()
    assert "no mean, over fewer sets than that of another defense" in text
    assert "refuses" not in text
    ax = corruptions(frame.reset_index())
    points = {of.get_label(): list(of.lines[0].get_xdata()) for of in ax.containers}
    assert points == {"undefended": [0, 1, 5], "gaussian-noise": [0, 1]}


def test_runs_go_on_where_they_ended(tmp_path, capsys):
    assert run(tmp_path) == 0
    file = tmp_path / "undefended.jsonl"
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:20])
    assert run(tmp_path) == 0
    assert file.read_text() == whole
    assert run(tmp_path, "--seed", "1") == 2
    assert 'is of other work (its "seed" differs)' in capsys.readouterr().err
    assert json.loads(lines[0])["about"]["defense"]["name"] == "undefended"


def test_lines_of_earlier_data_are_done_again_or_the_run_is_refused(tmp_path):
    x, path, notes = np.random.default_rng(0).random((2, 30, 1, 8, 8), np.float32), tmp_path / "own.npz", []
    one, two = undefended(), replace(undefended(), label="two")

    def judged(defenses, severities="15", out="out"):
        job = CorruptionJob(defenses, str(path), ("contrast",), tuple(severities), draws=2)
        job.run(tmp_path / out, notes.append)
        return load_corruptions(tmp_path / out)

    np.savez(path, x=x[0], y=np.arange(30) % 10)
    earlier = judged([one, two])
    np.savez(path, x=x[1], y=np.arange(30) % 10)
    for few in (([one],), ([one, two], "1")):
        with pytest.raises(UserError, match="of an earlier revision of"):
            judged(*few)
        assert load_corruptions(tmp_path / "out").equals(earlier)
    again = judged([one, two])
    assert "two: 3 finished lines are of an earlier revision of the data and are done again" in notes
    assert again.equals(judged([one, two], out="new"))
    assert not again.equals(earlier)


def test_the_manifest_is_there_from_the_start_and_a_repetition_leaves_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(CorruptionJob, "_shares", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            CorruptionJob([undefended()], "digits").run(tmp_path)
    (killed,) = read_manifest(tmp_path)["runs"]
    assert "finished" not in killed
    (tmp_path / "undefended.jsonl").unlink()
    assert run(tmp_path) == 0
    file = tmp_path / "manifest.json"
    before, content = file.read_bytes(), read_manifest(tmp_path)
    assert run(tmp_path) == 0
    assert file.read_bytes() == before
    assert content["runs"][0]["id"] == killed["id"]
    whole = content["runs"][1]
    assert whole["finished"] >= whole["started"]
    assert whole["versions"] == versions()
    assert whole["hardware"]["device"] == "cpu"
    assert (content["dataset"], content["indices"], content["seed"], content["draws"]) == ("digits", "first-40", 0, 2)
    model = vars(load_model("undefended"))["provenance"].fingerprint
    assert content["defenses"]["undefended"] == canonical(model)
    assert main(["corruptions", "pgd-at", "--corruptions", "contrast", "--severities", "1", "--indices", "first-40",
                 "--draws", "2", "--out", str(tmp_path), "--quiet"]) == 0  # fmt: skip
    assert set(read_manifest(tmp_path)["defenses"]) == {"undefended", "gaussian-noise", "pgd-at"}
    assert len(read_manifest(tmp_path)["runs"]) == 3


FEW = ["--corruptions", "contrast", "--severities", "5", "--indices", "first-30", "--quiet"]


def test_a_defense_takes_parameters_and_they_are_its_label(tmp_path):
    few = [*FEW, "--draws", "2", "--out", str(tmp_path)]
    steps = ["steps=2", "t_star=1/20"]
    for given in ([], steps, [*steps, "classifier=pgd-at"], ["runs=2", *steps]):
        assert main(["corruptions", "diffpure", *(("--set", *given) if given else ()), *few]) == 0
    found = {
        r["defense"]: r
        for r in load_corruptions(tmp_path).to_dict("records")
        if r["corruption"] == "contrast" and r["severity"] == "5"
    }
    said = ("steps=2, t_star=1/20", "steps=2, t_star=1/20, classifier=pgd-at", "runs=2, steps=2, t_star=1/20")
    assert set(found) == {"diffpure", *(f"diffpure, {text}" for text in said)}
    data, at = load_dataset("corrupted:digits/contrast/5"), torch.arange(30)
    model = load_model("diffpure", steps=2, t_star="1/20", classifier="pgd-at")
    said = verdict(model, data.x[:30], at, draws=2, selection=0, seed=0)
    right = float((said.predictions == data.y[:30]).float().mean())
    assert found["diffpure, steps=2, t_star=1/20, classifier=pgd-at"]["accuracy"] == pytest.approx(right)
    assert set(read_manifest(tmp_path)["defenses"]) == set(found)


def test_the_defenses_of_a_board(tmp_path, capsys):
    entry = '[[defense]]\nname = "diffpure"\nlabel = "{}"\nparams = {{ steps = 2, runs = {} }}\n'
    text = (ROOT / "leaderboards/quickstart.toml").read_text()
    head, attacks = text[: text.index("[[defense]]")], text[text.index("[[attack]]") :]
    board = tmp_path / "own.toml"
    board.write_text(head + entry.format("one", 1) + entry.format("two", 2) + attacks)
    few = [*FEW, "--draws", "2", "--out", str(tmp_path / "out")]
    assert main(["corruptions", str(board), *few]) == 0
    fingerprints = read_manifest(tmp_path / "out")["defenses"]
    assert {label: f["parameters"]["runs"] for label, f in fingerprints.items()} == {"one": "1", "two": "2"}
    assert {p.name for p in (tmp_path / "out").glob("*.jsonl")} == {"one.jsonl", "two.jsonl"}
    board.write_text(head + entry.format("a/b", 1) + entry.format("a b", 2) + attacks)
    capsys.readouterr()
    for arguments, message in [
        ([str(board)], 'the defense "a/b" shares its file'),
        ([str(board), "--set", "runs=1"], "--set is for one defense"),
        ([str(board), "--dataset", "mnist"], "the board is of digits, not of mnist"),
        (["adp", "pgd-at", "--set", "runs=1"], "--set is for one defense"),
        (["adp", "adp"], 'the defense "adp" shares its file'),
        (["adp", "--set", "run=1"], "unknown parameter of adp"),
        (["pgd-at", "--seed", "1"], 'one.jsonl is of other work (its "seed" differs)'),
    ]:
        assert main(["corruptions", *arguments, *few]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert {p.name for p in (tmp_path / "out").glob("*.jsonl")} == {"one.jsonl", "two.jsonl"}


def test_folders_of_other_work_stay_as_they_are(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text('{"board": "digits-linf"}')
    assert run(tmp_path) == 2
    assert 'holds results of the board "digits-linf", not of "corruptions-digits"' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]
    (tmp_path / "manifest.json").unlink()
    about = {"dataset": "digits", "split": "test", "indices": "first-40", "draws": 2, "seed": 0, "label": "another"}
    (tmp_path / "gaussian-noise.jsonl").write_text(json.dumps({"about": about}) + "\n")
    assert run(tmp_path) == 2
    assert "gaussian-noise.jsonl is of other work" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["gaussian-noise.jsonl"]


def test_bad_requests_stop_before_any_work(tmp_path):
    for change, message in [
        ({"corruptions": ("fog",)}, 'unknown corruption "fog"'),
        ({"severities": ("7",)}, "the severity is 7"),
        ({"dataset": "cifar10-c", "corruptions": ("contrasts",)}, "did you mean contrast"),
    ]:
        with pytest.raises(UserError, match=message):
            CorruptionJob([undefended()], **{"dataset": "digits", **change})
    work = CorruptionJob([undefended()], "cifar10-c", data_root=tmp_path)
    with pytest.raises(UserError, match="is missing; unpack CIFAR-10-C"):
        work.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
