"""Pages of rows: Rob(M), draws, pictures and files are those of the frames and of the results folder."""

import hashlib
import html
import io
import re
import shlex
from collections import Counter
from contextlib import redirect_stdout

import pandas as pd
import pytest
from fake_board import deterministic, failed, line, result, stochastic, write
from site_pages import COMMITTED, Page

from bench import load_audits, load_results, summary, worst_per_image
from bench.plots import margin_bins
from bench.report.model_info_export import export
from bench.site.build import build_site
from bench.site.model import slugs
from bench.spec.view_words import view_words
from bench.store.manifest import read_runs
from bench.store.reader import read_folder
from defenses.utils.errors import UserError

AUDITED = COMMITTED[0]


def labels(folder):
    """Labels of a board with their pages, in the order of the leaderboard."""
    names = list(dict.fromkeys(summary(folder)["defense"]))
    return dict(zip(names, slugs(names), strict=True))


def attacks(source):
    """Rows of the table of attacks: {head: text}, and the values of cells by head."""
    table = source.partition('<h2 id="attacks">')[2].partition("</table>")[0]
    heads = [
        text for tag, _, text in Page(table.partition("<thead>")[2].partition("</thead>")[0]).elements if tag == "th"
    ]
    for text in re.findall(r"<tr.*?</tr>", table.partition("<tbody>")[2], re.DOTALL):
        page = Page(text)
        cells = [(a, t) for tag, a, t in page.elements if tag in ("th", "td")]
        shown = {head: (t, a.get("data-v")) for head, (a, t) in zip(heads, cells, strict=True)}
        name, view = page.all("a")[0][2], page.all("small")[0][1]["title"]
        yield {"clean images": "none", "uniform noise": "uniform"}.get(name, name), view, shown


def test_commands_of_a_row_are_of_its_own_cells_and_repeat_it(site, monkeypatch):
    monkeypatch.chdir(AUDITED.parent)  # a site names a folder given by its whole path by its last part
    commits = {run["id"]: run["git"]["commit"] for run in read_runs(AUDITED)}
    cells = read_folder(AUDITED, lambda line, _: line)
    worst = summary(AUDITED).query("attack == 'worst case'").set_index("defense")["robust_mean"]
    last = 0
    for label, slug in labels(AUDITED).items():
        source = (site / f"b/digits-audit/{slug}.html").read_text().partition('<h2 id="reproduce">')[2]
        shell, python = (html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", source, re.DOTALL)[:2])
        made_at, run, table, verify = shell.splitlines()
        assert table == "purebench table again"
        made = Counter(commits.get(cell["run"], "") for cell in cells if cell["defense"] == label)
        unknown = made.pop("", 0)  # of a run that its manifest has lost
        if made:
            assert made[re.match(r"# made at (\w+)", made_at)[1]] == max(made.values())
            assert all(f"{commit} ({n} cell" in made_at for commit, n in made.items())
            assert (f"{unknown} cells at a commit that is not recorded" in made_at) == (unknown > 0)
        else:
            assert made_at == "# which commit made these cells is not recorded"
        last += list(commits.values())[-1] in made
        only = f"--defense {shlex.quote(label)}"
        assert run == f"purebench run digits-audit {only} --out again"
        assert verify == f"purebench verify digits-audit {only} --sample 4"
        told = io.StringIO()
        with redirect_stdout(told):
            exec(python, {})
        shown = next(line for line in told.getvalue().splitlines() if "worst case" in line)
        assert float(shown.split()[-1]) == pytest.approx(worst[label], abs=1e-6)
    assert last < len(worst)  # the last run made some rows at most


def lines(table):
    """Texts of the cells of each row of a table."""
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]


def figures(source):
    """Pictures of a page: {kind: (address, text below, rows of its numbers)}."""
    found = {}
    for text in re.findall(r'<figure class="plot">.*?</figure>', source, re.DOTALL):
        page = Page(text)
        address = page.all("img")[0][1]["src"]
        kind = re.search(r"-([a-z]+(?:-robust)?)(?:-\d+)?\.svg$", address)[1]
        found.setdefault(kind, (address, page.all("figcaption")[0][2], lines(text)[1:]))
    return found


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_submissions_and_draws_of_attacks_are_those_of_the_summary(folder, site):
    frame = summary(folder).set_index(["defense", "attack", "view"])
    checked = 0
    for label, slug in labels(folder).items():
        source = (site / f"b/{folder.name}/{slug}.html").read_text()
        for attack, view, shown in attacks(source):
            row = frame.loc[label, attack, view]
            assert int(shown["draws"][0]) == row["draws"]
            for m in (5, 15) if row["stochastic"] else ():
                assert float(shown[f"Rob({m}) %"][1]) == row[f"rob_m{m}"]
                checked += 1
        assert ("Rob(15) %" in source) == bool(frame.loc[label]["stochastic"].any())
    assert checked or folder.name == "digits-gan"


def test_every_attack_has_each_number_of_submissions(site):
    frame = summary(AUDITED)
    frame = frame[(frame["defense"] == "adp") & (frame["attack"] != "worst case")]
    source = (site / "b/digits-audit/adp.html").read_text()
    table = source.partition("Rob(M) of adp")[2].partition("</table>")[0]
    rows = [
        re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>\s*<.*?</tr>", table, re.DOTALL)
    ]
    assert rows[0] == ["attack, view", *(f"M = {m}" for m in range(1, 16))]
    found = {name: values for name, *values in rows[1:]}
    expected = {
        {"none": "clean images", "uniform": "uniform noise"}.get(r.attack, f"{r.attack}, {view_words(r.view)}"): r
        for r in frame.itertuples()
    }
    assert found.keys() == expected.keys()
    for name, values in found.items():
        row = expected[name]
        for m, share in ((1, row.robust_mean), (5, row.rob_m5), (15, row.rob_m15)):
            assert values[m - 1] == f"{100 * share:.1f}"
        assert [float(v) for v in values] == sorted(map(float, values), reverse=True)
    assert [float(v[0]) for v in found.values()] == sorted(float(v[0]) for v in found.values())


def test_few_draws_have_as_many_submissions(tmp_path):
    build_site([write(tmp_path / "few", stochastic())], tmp_path / "site")
    source = (tmp_path / "site/b/few/noisy.html").read_text()
    heads = [int(m) for m in re.findall(r">M = (\d+)<", source)]
    frame = load_results(tmp_path / "few")
    assert heads == [*range(1, min(15, int(frame["draws"].min())) + 1)]
    assert ("Rob(15) %" in source) == (heads[-1] == 15)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_margins_are_those_of_the_records(folder, site):
    records, worst = load_results(folder), worst_per_image(folder)
    for label, slug in labels(folder).items():
        bins = margin_bins(records[records["defense"] == label], worst[worst["defense"] == label])
        _, caption, rows = figures((site / f"b/{folder.name}/{slug}.html").read_text())["margins"]
        assert label in caption
        assert [row[2:] for row in rows] == [
            [f"{100 * r.clean:.1f}", f"{100 * r.worst:.1f}"] for r in bins.itertuples()
        ]
        assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.06 * len(rows))


def test_the_radius_is_that_of_the_audit_of_the_same_defense(site):
    audits = load_audits(AUDITED)
    curves = audits[audits["check"] == "accuracy falls with the radius"].set_index("defense")
    for label, slug in labels(AUDITED).items():
        address, _, rows = figures((site / f"b/digits-audit/{slug}.html").read_text())["radius"]
        numbers = {k[3:]: v for k, v in curves.loc[label, "numbers"].items()}
        assert [row[2] for row in rows] == [f"{100 * numbers[at]:.1f}" for at in ("1/10", "1/5", "3/10", "1/2", "1")]
        audit = figures((site / f"a/{curves.loc[label, 'fingerprint']}.html").read_text())
        assert audit["radius"][0].removeprefix("../") == address.removeprefix("../../")  # drawn once
        assert "convergence" in audit
    assert "radius" not in figures((site / "b/digits-gan/undefended.html").read_text())


def test_a_board_without_audits_has_no_radius(tmp_path):
    build_site([write(tmp_path / "one", deterministic())], tmp_path / "site")
    assert figures((tmp_path / "site/b/one/plain.html").read_text()).keys() == {"attacks", "margins"}


def test_the_pages_of_attacks_and_audits_have_their_pictures(site):
    source = (site / "b/digits-audit/attacks.html").read_text()
    found = figures(source)
    assert found.keys() == {"cost", "convergence", "attacks"}
    slugs_ = [*labels(AUDITED).values()]
    assert {*re.findall(r"p/digits-audit/([a-z0-9-]+)-attacks\.svg", source)} == {*slugs_}
    assert found["cost"][0] == figures((site / "b/digits-audit/index.html").read_text())["cost"][0]
    defenses = {row[0] for row in found["convergence"][2]}
    assert defenses == {*labels(AUDITED)}
    assert "gan-at" not in {
        row[0] for row in figures((site / "b/digits-gan/attacks.html").read_text())["convergence"][2]
    }
    found = figures((site / "audits.html").read_text())
    assert found.keys() == {"audit", "checks", "radius", "convergence"}
    (row,) = [row for row in found["checks"][2] if row[:2] == ["adp", "white box against SPSA"]]
    assert row[2:] == ["difference", "-4.3", "-6.0", "-2.6", "1.0"]  # all in percent


def test_pictures_are_small_and_all_are_shown(site):
    shown = {m for file in site.rglob("*.html") for m in re.findall(r'src="(?:\.\./)*(p/[^"]+)"', file.read_text())}
    files = {file.relative_to(site).as_posix(): file.stat().st_size for file in (site / "p").rglob("*.svg")}
    assert files.keys() == shown
    assert max(files.values()) <= 60_000


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_files_of_a_row_are_its_summary_its_entry_and_its_parts(folder, site):
    frame = summary(folder)
    for label, slug in labels(folder).items():
        mine = frame[frame["defense"] == label].reset_index(drop=True)
        read = pd.read_csv(site / f"r/{folder.name}/{slug}.csv", keep_default_na=False, na_values=[""])
        text = io.StringIO(mine.to_csv(index=False))
        pd.testing.assert_frame_equal(read[list(mine)], pd.read_csv(text, keep_default_na=False, na_values=[""]))
        assert (site / f"r/{folder.name}/{slug}.json").read_text() == export(folder, label).to_json()
        source = (site / f"b/{folder.name}/{slug}.html").read_text().partition('<h2 id="files">')[2]
        assert f'href="../../r/{folder.name}/{slug}.csv"' in source
        rows = re.findall(r'<tr><th[^>]*>(.*?)</th><td data-v="(\d+)">.*?<code>(.*?)</code>', source)
        files = {path: (int(size), sha) for path, size, sha in rows}
        names = {path.split("/")[1] for path in files}
        assert names == {
            p.name for p in (folder / "parts").iterdir() if f'"defense": "{label}"' in (p / "cells.jsonl").read_text()
        }
        assert len(files) == 4 * len(names)
        for path, (size, sha) in files.items():
            data = (folder / path).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha)


def test_a_row_without_an_entry_says_why(tmp_path):
    gap = [result(line("gap", "none"), [1] * 6), failed(line("gap", "apgd"), "error", "boom")]
    boards = {"gap": write(tmp_path / "gap", gap), "plain": write(tmp_path / "goal", deterministic(targets="3"))}
    build_site(boards.values(), tmp_path / "site")
    for label, folder in boards.items():
        with pytest.raises(UserError) as caught:
            export(folder, label)
        source = (tmp_path / f"site/b/{folder.name}/{label}.html").read_text().partition('<h2 id="files">')[2]
        assert not (tmp_path / f"site/r/{folder.name}/{label}.json").exists()
        assert str(caught.value).replace(str(folder), folder.name) in source
        assert f"{label}.csv" in source


def test_a_targeted_worst_case_is_no_share_of_right_images(tmp_path):
    """It counts draws that do not give the target, so that clean accuracy less it means nothing."""
    for name, targets in (("any", "none"), ("goal", "next")):
        board = write(tmp_path / name, deterministic(targets=targets))
        build_site([board], tmp_path / f"site-{name}", gallery=0)
        (row,) = (tmp_path / f"site-{name}").glob("b/*/plain.html")
        text, shown = row.read_text(), (row.parent / "index.html").read_text()
        assert ("stay right" in text, "do not give the target" in text) == (targets == "none", targets == "next")
        assert ('data-k="drop"' in shown) == (targets == "none")
