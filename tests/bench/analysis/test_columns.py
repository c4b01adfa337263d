"""The glossary describes every column of the frames, with its dtype, and `purebench columns` shows it."""

import inspect
import re
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from boards import purebench_here
from fake_board import deterministic, recorded, result, stochastic, write

import bench
from bench.analysis.columns import columns_of, frames
from bench.report.export import FRAMES
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
OF_BOARDS = [name for name in frames() if name in {*FRAMES, *(f"load_{name}" for name in FRAMES), "pairs"}]
PER_IMAGE = ["by_class", "broken_alone", "cascade", "agreement"]


def shares():
    worst = bench.worst_per_image(RESULTS / "digits-linf")
    return worst.pivot(index="image", columns="defense", values="robust")


def agreed():
    rates = pd.DataFrame({"defense": list("abc"), "contraction": [0.2, 0.5, 0.9], "robust": [0.1, 0.6, 0.4]})
    return bench.contraction_agreement(rates, resamples=50)[1]


def difference(folder):
    """Two runs in which an image is lost, and whose last cells differ in their identity."""
    old, new = deterministic(), deterministic()
    new[2] = result(new[2].line, [0, 1, 0, 0, 1, 0])
    new[3] = result(new[3].line | {"key": "0" * 20}, [1, 0, 1, 0, 1, 1], size=0.1)
    old[3].line["identity"], new[3].line["identity"] = {"seed": 0}, {"seed": 1}
    for name, cells in (("a", old), ("b", new)):
        recorded(folder / name, cells, [cell.line for cell in cells])
    return bench.diff_runs(folder / "a", folder / "b")


OTHER = {
    "rank_ranges": lambda _: bench.rank_ranges(shares()),
    "claims_table": lambda _: bench.claims_table(RESULTS / "digits-linf"),
    "reproduction": lambda _: bench.reproduction(RESULTS / "reproduction-digits"),
    "load_audits": lambda _: bench.load_audits(RESULTS / "digits-audit"),
    "load_certificates": lambda _: bench.load_certificates(RESULTS / "digits-defenses"),
    "load_runs": lambda _: bench.load_runs(RESULTS / "digits-linf"),
    "Difference.rows": lambda folder: difference(folder).rows,
    "Difference.images": lambda folder: difference(folder).images,
    "Difference.changes": lambda folder: difference(folder).changes,
    "detection": lambda _: bench.detection(RESULTS / "digits-defenses"),
    "contraction_agreement": lambda _: agreed(),
    "load_corruptions": lambda _: bench.load_corruptions(RESULTS / "corruptions-digits"),
    "load_smoothing": lambda _: bench.load_smoothing(RESULTS / "smooth-digits-smoothing"),
    "load_poisoning": lambda _: bench.load_poisoning(RESULTS / "digits-poisoning"),
    "columns": lambda _: bench.columns(),
}


def check(frame, name):
    described = {column.name: column for column in columns_of(name)}
    needed = [column.name for column in described.values() if column.always]
    assert {*needed} <= {*frame}  # their order is that of the parts
    assert not {*frame} - described.keys()
    kinds = {c: str(frame[c].dtype) for c in frame if len(frame) and described[c].dtype != "object"}
    assert kinds == {c: described[c].dtype for c in kinds}


@pytest.mark.parametrize("name", frames())
def test_a_radius_has_its_number_beside_it(name):
    names = [column.name for column in columns_of(name)]
    assert ("eps" in names) == ("eps_value" in names)
    if "eps" in names:
        assert names[names.index("eps") + 1] == "eps_value"


@pytest.mark.parametrize("name", ["reproduction", "load_audits", "detection", "Difference.rows", "Difference.images"])
def test_the_number_is_the_radius(name, tmp_path):
    frame = OTHER[name](tmp_path)
    assert len(frame)
    assert list(frame)[list(frame).index("eps") + 1] == "eps_value"
    assert frame["eps_value"].tolist() == [float(Fraction(text)) for text in frame["eps"]]


@pytest.mark.parametrize("folder", ["digits-linf", "digits-defenses", "fake"])
@pytest.mark.parametrize("name", OF_BOARDS)
def test_every_column_is_described_with_its_dtype(name, folder, tmp_path):
    path = RESULTS / folder if folder != "fake" else write(tmp_path, [*deterministic(), *stochastic()])
    check(getattr(bench, name)(path), name)


@pytest.mark.parametrize("folder", ["digits-linf", "fake"])
@pytest.mark.parametrize("name", PER_IMAGE)
def test_of_questions_per_image_and_class(name, folder, tmp_path):
    path = RESULTS / folder if folder != "fake" else write(tmp_path, [*deterministic(), *stochastic()])
    frame = getattr(bench, name)(path)
    assert len(frame)
    check(frame, name)


@pytest.mark.parametrize("name", list(OTHER))
def test_of_the_other_frames(name, tmp_path):
    frame = OTHER[name](tmp_path)
    assert len(frame)
    check(frame, name)


def test_records_of_benchmark_are_those_of_load_results():
    attack = {"name": "bench:apgd", "steps": 2}
    check(bench.benchmark("undefended", 5, eps="1/5", attacks=attack, quiet=True), "load_results")


def test_no_public_frame_is_without_its_columns():
    returning = set()
    for name in bench.__all__:
        function = getattr(bench, name)
        if inspect.isfunction(function) and "DataFrame" in str(inspect.signature(function).return_annotation):
            returning.add(name)
    assert returning - frames().keys() == {"benchmark", "judge", "run_preset"}  # of load_results
    assert {name for name in frames() if "." not in name} <= returning
    assert frames().keys() == {*OF_BOARDS, *PER_IMAGE, *OTHER}
    for column in columns_of():
        if "." not in column.frame and column.frame != "contraction_agreement":
            kind = ", ".join(filter(None, (column.dtype, column.unit)))
            assert f"- `{column.name}` ({kind}): {column.meaning}\n" in getattr(bench, column.frame).__doc__


def test_meanings_are_short_and_shares_are_shares():
    for column in columns_of():
        assert 3 <= len(column.meaning) <= 130, column
        assert not column.meaning.endswith("."), column
    frame = bench.summary(RESULTS / "digits-linf")
    for column in columns_of("summary"):
        if column.unit == "share" and column.name in frame:
            assert frame[column.name].dropna().between(0, 1).all(), column


def test_ends_of_intervals_name_their_mean():
    found = {column.name: column.meaning for column in columns_of("summary")}
    assert found["robust_low"].startswith("lower end of the interval of `robust_mean` (Wilson")
    assert found["asr_high"].startswith("upper end of the interval of `asr` (")


def test_in_python():
    frame = bench.columns("load_draws")
    assert list(frame) == ["frame", "name", "dtype", "unit", "meaning", "always"]
    assert set(frame["frame"]) == {"load_draws"}
    assert set(bench.columns()["frame"]) == frames().keys()
    with pytest.raises(UserError, match='unknown frame "draws"; did you mean load_draws'):
        bench.columns("draws")


def test_on_the_command_line():
    assert re.search(
        r"^  load_draws +a row per image, attack and draw$", purebench_here("columns").stdout, re.MULTILINE
    )
    told = purebench_here("columns", "load_draws").stdout
    assert told.count("\n") == 1 + len(columns_of("load_draws"))
    told = purebench_here("columns", "worst", "attack").stdout
    assert "leaderboard:" in told
    assert all("worst" in text.lower() for text in told.splitlines() if text.startswith("  "))
    told = purebench_here("columns", "lod_results")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "did you mean load_results" in told.stderr


def test_the_whole_glossary_as_a_frame():
    assert isinstance(bench.columns(), pd.DataFrame)
    assert not bench.columns().duplicated(["frame", "name"]).any()


def test_what_is_said_of_intervals_and_tests_is_what_they_are():
    """The median has no Wilson interval, and pairs have McNemar's test of majority decisions alone."""
    said = {(c.frame, c.name): c.meaning for c in columns_of()}
    for end in ("low", "high"):
        assert "order statistics" in said["summary", f"median_perturbation_{end}"]
        assert "Wilson" not in said["summary", f"median_perturbation_{end}"]
        assert "Wilson" in said["summary", f"robust_{end}"]
    assert "sign-flip" not in said["pairs", "p_value"]
    assert "McNemar's exact test" in said["pairs", "p_value"]
    assert "majority" in said["pairs", "only_a"]
    assert "clean-label of the target's" in said["load_poisoning", "ratio"]
    assert "a deterministic defense makes one" in said["load_corruptions", "draws"]
