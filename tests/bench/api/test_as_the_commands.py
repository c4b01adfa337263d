"""The Python functions give what the commands give: tables, comparisons, certificates, judgements, presets, audits."""

import copy
import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from boards import purebench_here
from fake_board import deterministic, failed, line, stochastic, write

import bench
from bench.audit.run import CHECKS
from defenses import load_model
from defenses.data import load_dataset
from defenses.utils.errors import UserError

FEW = {"n_examples": 6, "attacks": [{"name": "foolbox:LinfPGD", "steps": 3}]}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def frame():
    return bench.benchmark("undefended", eps=["1/5", 0.1], **FEW)


@pytest.fixture(scope="module")
def network():
    return load_model("undefended").network


def test_a_list_of_radii_is_a_setting_each(frame):
    assert list(dict.fromkeys(frame["eps"])) == ["1/5", "1/10"]
    assert len(frame) == 2 * 3 * 6
    again = bench.benchmark("undefended", eps=np.array([0.2, 0.1]), **FEW)
    assert list(again["cell"]) == list(frame["cell"])


def test_the_summary_of_a_frame_is_that_of_its_folder(tmp_path):
    lines = deterministic() + stochastic() + [failed(line("plain", "boom"), "error", "Oops")]
    folder = write(tmp_path / "board", lines)
    frame = bench.load_results(folder)
    pd.testing.assert_frame_equal(bench.summary(frame), bench.summary(folder))
    pd.testing.assert_frame_equal(bench.worst_per_image(frame), bench.worst_per_image(folder))
    pd.testing.assert_frame_equal(
        bench.summary(frame.sample(frac=1, random_state=0).sort_index()), bench.summary(folder)
    )


def test_the_summary_of_some_rows_is_of_these(frame):
    few = frame[(frame["eps"] == "1/5") & (frame["image"] < 4)]
    rows = bench.summary(few)
    assert set(rows["n_images"]) == set(rows["planned"]) == {4}
    attacked = few.query("attack == 'foolbox:LinfPGD'")["accuracy"].mean()
    assert bench.clean_and_robust(few) == (1.0, attacked)
    with pytest.raises(UserError, match="2 worst cases; give rows of one defense at one threat"):
        bench.clean_and_robust(frame)
    for function in (bench.summary, bench.worst_per_image, bench.table):
        with pytest.raises(UserError, match='no column "defense"'):
            function(frame.drop(columns="defense"))


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex", "html"])
def test_the_table_of_a_frame_has_the_numbers_of_its_folder(form, tmp_path):
    long = FEW | {"attacks": [{"name": "foolbox:LinfPGD", "steps": 100}, "foolbox:LinfFastGradientAttack"]}
    frame = bench.benchmark("undefended", eps="1/5", out=tmp_path / "out", **long)
    ours, theirs = bench.table(frame, form), bench.table(tmp_path / "out", form)
    assert theirs == purebench_here("table", tmp_path / "out", "--format", form).stdout
    if form == "csv":
        a, b = (pd.read_csv(io.StringIO(t)) for t in (ours, theirs))
        pd.testing.assert_frame_equal(a[list(b)], b)
    else:
        title = "Comparison: digits test (first-6, 6 images), Linf 1/5"
        expected = theirs.replace("<title>undefended", f"<title>{title}").replace("<h1>undefended", f"<h1>{title}")
        assert ours.splitlines() == [line for line in expected.splitlines() if 'href="tables.csv"' not in line]


def test_a_table_of_a_frame_has_its_warnings(frame):
    text = bench.table(
        frame.assign(warnings="steps = 3 is short; give 100 | gradient certificate: fails: a; b"), "markdown"
    )
    assert "- foolbox:LinfPGD on undefended: steps = 3 is short; give 100; no other attack is as strong" in text
    assert "| undefended † " in text
    assert "certifies (undefended: fails: a; b); `purebench" in text.replace("\\`", "`")
    (comparison,) = bench.compare(frame[frame["eps"] == "1/5"], "undefended", "undefended@none")
    assert comparison.caveats == ()


def test_a_table_says_what_a_frame_does_not_know(tmp_path):
    folder = write(tmp_path / "board", deterministic())
    assert "† and ‡" in bench.table(bench.load_results(folder))
    with pytest.raises(UserError, match='unknown format "word"; known: csv, html'):
        bench.table(folder, "word")
    with pytest.raises(UserError, match="is no results folder"):
        bench.table(tmp_path)


def test_frames_compare_as_their_folders(tmp_path):
    one, two = (write(tmp_path / name, stochastic()) for name in "ab")
    first, second = (bench.load_results(f) for f in (one, two))
    (by_frame,) = bench.compare(first, "noisy", "noisy@none")
    (by_folder,) = bench.compare(one, "noisy", "noisy@none")
    assert repr(by_frame).splitlines()[:4] == repr(by_folder).splitlines()[:4]
    assert repr(by_folder) + "\n" == purebench_here("compare", one, "noisy", "noisy@none").stdout
    (across,) = bench.compare(first, "noisy", "noisy@square", other=two)
    assert across.difference.n == 6
    second.loc[second["image"] == 3, "sha"] = "0"
    with pytest.raises(UserError, match="other versions of image 3 of digits test"):
        bench.compare(first, "noisy", "noisy", other=second)


def test_a_notebook_shows_the_comparison(frame):
    html = frame._repr_html_()
    assert html.startswith("<section>\n<h2>Comparison: digits test (first-6, 6 images)")
    assert "36 rows" in html
    assert html.count("<tr>") == 3
    assert "<h2>" not in frame.head()._repr_html_()  # a part of it is shown as any frame
    assert type(frame) is pd.DataFrame
    for other in (pickle.loads(pickle.dumps(frame)), copy.deepcopy(frame), frame.copy()):
        pd.testing.assert_frame_equal(other, frame)
    broken = bench.benchmark("undefended", eps="1/5", **FEW)
    del broken["defense"]
    assert "<table" in broken._repr_html_()


def test_a_result_that_is_unpacked_is_refused_before_any_work():
    with pytest.raises(UserError, match=r"no pair; write clean, robust = bench.clean_and_robust\(bench.benchmark"):
        clean, robust = bench.benchmark("undefended", eps="1/5", n_examples=3, attacks="no such attack")
    clean, robust = bench.clean_and_robust(bench.benchmark("undefended", eps="1/5", **FEW))
    assert 0 <= robust <= clean == 1


def test_verbose_is_the_opposite_of_quiet(capfd):
    bench.benchmark("undefended", eps="1/5", verbose=True, **FEW)
    assert "[3/3] undefended" in capfd.readouterr().err
    bench.benchmark("undefended", eps="1/5", verbose=False, **FEW)
    assert not capfd.readouterr().err


def test_a_preset_gives_the_cells_of_the_command(network, tmp_path):
    words = ("--preset", "standard", "--defense", "undefended", "--dataset", "digits", "--eps", "1/5")
    plan = purebench_here("run", *words, "--indices", "first-2", "--out", tmp_path, "--workers", "0", "--quiet")
    assert plan.returncode == 0, plan.stderr
    before = bench.load_results(tmp_path)
    frame = bench.run_preset("standard", "undefended", eps=0.2, n_examples=2, out=tmp_path)
    assert list(frame["seconds"]) == list(before["seconds"])  # nothing was run again
    own = bench.run_preset("standard", network, eps="1/5", indices="first-2", name="mine")
    assert set(own["defense"]) == {"mine"}
    assert own["accuracy"].tolist() == frame["accuracy"].tolist()
    for more, words in (
        ({"preset": "standart"}, 'unknown preset "standart"; did you mean standard'),
        ({}, 'the preset "standard" has no eps of its own'),
        ({"eps": "1/5", "n_examples": 3, "indices": "all"}, "named twice"),
    ):
        with pytest.raises(UserError, match=words):
            bench.run_preset(**{"preset": "standard", "model": network, **more})


def test_images_in_memory_are_judged(network, tmp_path):
    data = load_dataset("digits")
    x, y = data.x[:8], data.y[:8]
    adversarial = (x + 0.1).clamp(0, 1)
    np.savez(tmp_path / "theirs.npz", x_adv=adversarial.numpy(), index=np.arange(8), y=y.numpy())
    right = (network(adversarial).argmax(1) == y).double().tolist()
    given = (adversarial, adversarial.numpy(), {"x_adv": adversarial, "y": y}, tmp_path / "theirs.npz")
    for images in given:
        frame = bench.judge(images, network, eps="1/5")
        assert frame.query("attack not in ['none', 'uniform']")["accuracy"].tolist() == right
    pair = bench.judge(adversarial, network, (x.numpy(), y.tolist()), eps="1/5", label="pale")
    assert pair.query("attack == 'pale'")["accuracy"].tolist() == right
    for images, words in (
        ([1, 2], "the images are a list; give a tensor"),
        ({"z": x}, "given holds z; name its images x_adv"),
        (x[:, :, :4], "given has images of 1x4x8; those of digits are 1x8x8"),
        (x.numpy() * 255, "must lie in"),
    ):
        with pytest.raises(UserError, match=words):
            bench.judge(images, network, eps="1/5")


def test_images_that_are_the_clean_ones_are_told(capsys, caplog):
    bench.judge(load_dataset("digits").x[:4], "undefended", eps="1/5")
    assert caplog.messages == ["note: given: every image is the clean one, so nothing was attacked"]
    caplog.set_level("ERROR", "purebench")  # as users silence them
    caplog.clear()
    bench.judge(load_dataset("digits").x[:4], "undefended", eps="1/5")
    assert (caplog.messages, capsys.readouterr().err) == ([], "")


def test_a_certificate_prints_as_the_command_does(network):
    certificate = bench.certify("undefended")
    assert certificate.state == "passed"
    assert repr(certificate) + "\n" == purebench_here("certify", "undefended").stdout
    data = load_dataset("digits")
    own = bench.certify(network, (data.x[:8].numpy(), data.y[:8].numpy()), name="mine")
    assert own["checks"] == certificate["checks"]
    assert repr(own).startswith("mine: passed on 4 images")


def test_an_audit_is_that_of_the_command(network, tmp_path, monkeypatch):
    few = {name: check for name, check in CHECKS.items() if "gradient" in name}  # those that attack take seconds
    monkeypatch.setattr("bench.audit.run.CHECKS", few)
    told = purebench_here("audit", "undefended", "--eps", "1/5", "--indices", "first-8", "--out", tmp_path, "--quiet")
    audit = bench.audit_defense("undefended", eps="1/5", indices="first-8")
    assert repr(audit) + "\n" == told.stdout
    own = bench.audit_defense(network, eps="1/5", indices="first-8", out=tmp_path, name="mine")
    assert [f.status for f in own.findings] == [f.status for f in audit.findings]
    assert "mine" in (tmp_path / "audit/audit.md").read_text()
    with pytest.raises(UserError, match="eps is missing"):
        bench.audit_defense(network)


def test_clean_accuracy_takes_arrays(network):
    data = load_dataset("digits")
    expected = bench.clean_accuracy(network, data.x, data.y)
    assert bench.clean_accuracy(network, data.x.numpy(), data.y.numpy()) == expected
    assert bench.clean_accuracy(network, data.x.double().numpy(), data.y.tolist()) == expected
    assert isinstance(data.y, torch.Tensor)
