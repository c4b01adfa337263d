"""Pictures of results folders by name, in Python and by `purebench figures`."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
from boards import purebench_here
from fake_board import HOSTILE, deterministic, failed, line, result, stochastic, write

import bench
from bench.figures.pictures import BY_NAME, NAMES, of_audits, pictures, width_of
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
COMMITTED = ("digits-linf", "digits-audit", "corruptions-digits", "smooth-digits-smoothing")


def test_every_name_is_drawn_from_some_committed_results():
    found = list(pictures(*(RESULTS / name for name in COMMITTED)))
    found += pictures(RESULTS / "digits-linf", only=BY_NAME, defense="adp")
    assert {picture.name for picture in found} == NAMES.keys()
    assert len({picture.slug.lower() for picture in found}) == len(found)
    assert all(picture.alt.endswith(".") and len(picture.alt) < 200 and len(picture.data) for picture in found)


@pytest.mark.parametrize("name", ["digits-defenses", "mnist-defenses"])
def test_pictures_of_the_largest_boards_are_small(name):
    for kind in ("ranks", "clean-robust", "cost", "matrix", "claims"):
        svg = bench.figure(kind, RESULTS / name).svg
        assert len(svg) <= 60_000, kind
        ET.fromstring(svg)


def test_a_picture_in_python(tmp_path):
    picture = bench.figure("attacks", RESULTS / "digits-linf", defense="adp")
    assert picture._repr_svg_() == picture.svg
    assert "adp" in picture.alt
    assert set(picture.data["defense"]) == {"adp"}
    assert picture.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    wide = picture.figure(width=50.8)
    assert wide.get_size_inches()[0] == pytest.approx(2)
    assert picture.figure().get_size_inches()[0] != pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bench.figure("rank", RESULTS / "digits-linf"), 'unknown picture "rank"; did you mean ranks'),
        (lambda: bench.figure("attacks", RESULTS / "digits-linf"), "has several: .*; name the defense"),
        (lambda: bench.figure("attacks", RESULTS / "digits-linf", defense="adpp"), 'unknown defense "adpp"'),
        (lambda: bench.figure("radius", RESULTS / "digits-linf"), "there is no picture radius of .*digits-linf"),
        (lambda: bench.figure("ranks", 3), "the results are '3'; give the folder"),
        (lambda: list(pictures()), "name a results folder"),
        (lambda: list(pictures(RESULTS)), "holds no results"),
        (lambda: width_of("5mm"), 'width is "5mm"; write it as 84mm'),
        (lambda: width_of("wide"), 'width is "wide"'),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(UserError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_widths():
    assert (width_of(None), width_of("84mm"), width_of("8.4 cm")) == (None, 84, 84)
    assert width_of("3.3in") == pytest.approx(83.82)


def test_hostile_names_and_equal_file_names(tmp_path):
    names = [HOSTILE, "../../etc/passwd", "x" * 200, "a/b", "a b", "二"]
    write(tmp_path / "b", [result(line(name, "bench:pgd"), [1, 0, 1, 0, 1, 1]) for name in names])
    out = tmp_path / "out"
    told = purebench_here("figures", tmp_path / "b", "--out", out)
    assert (told.returncode, told.stderr) == (0, "")
    files = sorted(path.name for path in out.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "out"]
    assert sum(name.startswith("attacks-") for name in files) == len(names)
    assert {"attacks-a-b.svg", "attacks-a-b-2.svg"} <= set(files)
    for path in out.iterdir():
        ET.fromstring(path.read_text())


@pytest.mark.parametrize("results", [deterministic(), stochastic(), [failed(line("a", "bench:pgd"), "error", "crash")]])
def test_boards_of_one_defense(tmp_path, results):
    write(tmp_path, results)
    found = list(pictures(tmp_path)) if results[0].line["status"] == "ok" else []
    for picture in found:
        assert picture.svg
    if not found:
        with pytest.raises(UserError, match="there is no picture of"):
            list(pictures(tmp_path))


def test_the_command_writes_the_named_pictures(tmp_path):
    words = ("figures", RESULTS / "digits-linf", "--only", "ranks", "attacks", "--defense", "adp", "--format", "png")
    told = purebench_here(*words, "--out", tmp_path / "f", "--width", "60mm")
    assert (told.returncode, told.stdout) == (0, f"2 pictures in {tmp_path / 'f'}\n")
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["attacks-adp.png", "ranks.png"]
    before = (tmp_path / "f/ranks.png").read_bytes()
    assert purebench_here(*words, "--out", tmp_path / "f", "--width", "60mm", "--quiet").stdout == ""
    assert (tmp_path / "f/ranks.png").read_bytes() == before
    told = purebench_here("figures", RESULTS / "digits-linf", "--only", "rnks", "--out", tmp_path / "g")
    assert (told.returncode, (tmp_path / "g").exists()) == (2, False)
    assert "did you mean ranks or margins?" in told.stderr
    told = purebench_here("figures", RESULTS / "digits-linf", "--defense", "x", "--out", tmp_path / "g")
    assert (told.returncode, (tmp_path / "g").exists()) == (2, False)
    (tmp_path / "file").write_text("")
    told = purebench_here(*words, "--out", tmp_path / "file/f")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)


def test_matplotlib_is_imported_where_something_is_drawn_only():
    code = (
        "import sys, bench, bench.plots, bench.cli.main; bench.summary; bench.leaderboard; bench.load_results; "
        "print('matplotlib' in sys.modules); bench.figure; print('matplotlib' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True"]


def test_more_defenses_than_a_picture_holds_are_several_pictures():
    audits = bench.load_audits(RESULTS / "digits-audit")
    many = pd.concat([audits.assign(defense=audits["defense"] + str(i)) for i in range(3)])  # 18
    found = list(of_audits(many))
    assert [p.name for p in found] == ["audit", "checks", "radius", "convergence"] * 2
    assert [p.data["defense"].nunique() for p in found] == [12] * 4 + [6] * 4
    assert all(p.svg for p in found)


def test_checks_without_numbers_are_not_drawn():
    audits = bench.load_audits(RESULTS / "digits-audit")
    bare = audits.assign(numbers=[{"single step": 0.5} if "single" in c else {} for c in audits["check"]])
    assert [picture.name for picture in of_audits(bare)] == ["audit"]


def test_names_of_files_that_meet_are_told_apart(tmp_path):
    for folder, names in (("a", ["adp", "adp-2"]), ("b", ["adp"])):
        write(tmp_path / folder, [result(line(name, "bench:pgd"), [1, 0, 1, 0, 1, 1]) for name in names])
    slugs = [p.slug for p in pictures(tmp_path / "a", tmp_path / "b", only=["attacks"])]
    assert slugs == ["attacks-adp", "attacks-adp-2", "attacks-adp-3"]


def test_numbers_count_an_image_once():
    worst = bench.figure("matrix", RESULTS / "digits-linf").numbers
    assert worst["images"].tolist() == [500] * 4
    assert "sigma" in bench.figure("certified", RESULTS / "smooth-digits-smoothing").numbers


def test_majorities_of_a_picture_are_those_of_tables():
    numbers = bench.figure("draws", RESULTS / "digits-linf", defense="adp").numbers
    last = numbers[(numbers["right"] == "majority") & (numbers["m"] == 15)]
    summary = bench.summary(RESULTS / "digits-linf").query("defense == 'adp'").set_index(["attack", "view"])
    clean = summary.loc[("none", "deployed"), "majority"]
    assert last[last["attack"] == "clean images"]["share"].tolist() == pytest.approx(
        [clean], abs=0.02
    )  # 15 of 65 draws
    board = bench.summary(RESULTS / "digits-defenses").query("defense == 'smoothing'")
    numbers = bench.figure("draws", RESULTS / "digits-defenses", defense="smoothing").numbers
    last = numbers[(numbers["right"] == "majority") & (numbers["m"] == 15)].set_index("attack")["share"]
    wanted = {f"{row.attack}, {row.view}": row.majority for row in board.itertuples() if row.view != "deployed"}
    assert {name: wanted[name] for name in last.index.drop("clean images")} == last.drop("clean images").to_dict()


def test_numbers_of_the_matrix_say_who_breaks():
    numbers = bench.figure("matrix", RESULTS / "digits-linf").numbers.set_index("defense")
    worst = bench.worst_per_image(RESULTS / "digits-linf").query("defense == 'pgd-at' and accuracy < clean")
    name, count = worst["attack"].value_counts().index[0], worst["attack"].value_counts().iloc[0]
    assert numbers.loc["pgd-at", "broken_by"].startswith(f"{name}: {count}; ")
