"""What pages say: numbers of `summary`, links that lead somewhere, nothing from elsewhere, no harm by names."""

import json
import re

import pandas as pd
import pytest
from boards import ROOT
from fake_board import HOSTILE, deterministic, failed, line, result, stochastic, write
from site_pages import COMMITTED, Page, board_rows, hostile, mixed, pages

from bench import __version__, claims_table, leaderboard, summary
from bench.report.checklist import NAMES, read_checklist
from bench.site.build import build_site
from bench.site.model import slugs
from bench.store.manifest import read_runs
from bench.store.reader import read_folder

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
TRACKS = [ROOT / "results" / name for name in ("corruptions-digits", "smooth-digits-smoothing", "digits-poisoning")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of committed boards and other results, and of boards that are harder to show."""
    folder = tmp_path_factory.mktemp("site")
    fakes = [hostile(folder / "hostile"), mixed(folder / "mixed")]
    build_site([*COMMITTED, *TRACKS, *fakes], folder / "site", HOSTILE)
    return folder / "site"


@pytest.fixture(scope="module")
def read(site):
    return pages(site)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_numbers_of_a_board_are_those_of_the_frames(folder, read):
    frame = leaderboard(*COMMITTED)
    frame = frame[frame["board"] == folder.name].set_index("defense")
    worst = summary(folder)
    worst = worst[worst["attack"] == "worst case"].set_index("defense")
    rows = board_rows(read[f"b/{folder.name}/index.html"])
    assert [label for label, _ in rows] == list(frame.index)
    checked = 0
    for label, cells in rows:
        for key, cell in cells.items():
            if "data-v" not in cell or key.startswith("a-") or key in ("year", "passes", "drop"):
                continue
            source = frame if key in frame else worst
            assert float(cell["data-v"]) == source.loc[label, key]
            for end in ("low", "high") if "data-l" in cell and key != "rank_low" else ():
                name = f"{key.removesuffix('_mean') if key != 'mean_logit' else key}_{end}"
                assert float(cell[f"data-{end[0]}"]) == source.loc[label, name]
            checked += 1
            if key in ("worst_mean", "clean_mean"):
                assert cell["text"].startswith(f"{100 * source.loc[label, key]:.1f} [")
        low, high = frame.loc[label, ["rank_low", "rank_high"]]
        text = "none" if pd.isna(low) else f"{low}" if low == high else f"{low}–{high}"
        assert cells["rank_low"]["text"] == text
        assert ("no rank" in cells["defense"]["text"]) == bool(pd.isna(low))
    assert checked > 5 * len(rows)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_numbers_of_attacks_are_those_of_the_summary(folder, read):
    frame = summary(folder)
    attacks = frame[frame["attack"] != "worst case"]
    rows = dict(board_rows(read[f"b/{folder.name}/index.html"]))
    for label, slug in zip(rows, slugs(rows), strict=True):
        mine = sorted(attacks[attacks["defense"] == label]["robust_mean"])
        page = read[f"b/{folder.name}/{slug}.html"]
        table = page.source.partition('<h2 id="attacks">')[2].partition("</table>")[0]
        shares = [float(v) for v in re.findall(r'</th><td data-v="([^"]+)"', table)]
        assert sorted(shares) == mine
        of_board = [float(c["data-v"]) for k, c in rows[label].items() if k.startswith("a-") and "data-v" in c]
        assert sorted(of_board) == sorted(
            attacks[(attacks["defense"] == label) & (attacks["attack"] != "none")]["robust_mean"]
        )


def test_claims_of_a_row_are_those_of_the_table(read):
    table = claims_table(COMMITTED[0])
    page = read["b/digits-audit/pgd-at.html"].source.partition('<h2 id="claims">')[2].partition("</table>")[0]
    shares = sorted(float(v) for v in re.findall(r'data-v="([^"]+)"', page))
    assert shares == sorted(table[table["defense"] == "pgd-at"]["claimed_robust"].dropna())
    assert shares


def made(folder):
    """Commits of the finished cells of a board by defense; "" where its manifest has lost the run."""
    commits = {run["id"]: run["git"]["commit"][:10] for run in read_runs(folder)}
    found = {}
    for cell in read_folder(folder, lambda cells, _: cells):
        found.setdefault(cell["defense"], set()).add(commits.get(cell["run"], ""))
    return found


def test_every_page_says_which_commits_made_its_results_and_which_version_built_it(read):
    of_boards = {folder.name: made(folder) for folder in COMMITTED}
    of_tracks = {folder.name: {run["git"]["commit"][:10] for run in read_runs(folder)} for folder in TRACKS}
    folders = {name: set.union(*rows.values()) for name, rows in of_boards.items()} | of_tracks
    rows = {f"b/{name}/{slug}": rows[label] for name, rows in of_boards.items()
            for label, slug in zip(rows, slugs(rows), strict=True)}  # fmt: skip
    assert len(folders["digits-audit"]) > 1
    for path, page in read.items():
        footer = page.source.partition("<footer>")[2]
        assert f"version {__version__} of purebench" in footer
        shown = set(re.findall(r"commit <code>([0-9a-f]{10})</code>", footer))
        own = rows.get(path.removesuffix(".html").removesuffix("-images"))
        if own is None and path.startswith("b/"):
            own = folders.get(path.split("/")[1], {""})
        elif path.startswith("a"):
            own = folders["digits-audit"]  # alone has audits
        elif own is None:
            own = {"", *set.union(*folders.values())}
            assert all(f"<code>{name}</code>" in footer for name in folders), path
        assert shown == own - {""}, path
        assert ("commit not recorded" in footer) == ("" in own), path


def test_what_is_missing_is_said_in_words(read):
    rows = dict(board_rows(read["b/mixed/index.html"]))
    assert "no rank: partial" in rows["gap"]["defense"]["text"]
    assert rows["gap"]["worst_attack"]["text"] == "partial"
    assert rows["gap"]["a-apgd"]["text"] == "error: boom"
    assert rows["no"]["a-apgd"]["text"] == "unsupported: no gradients"
    assert rows["gap"]["a-square"]["text"] == "not planned"
    assert rows["plain"]["rob_m5"]["text"] == "deterministic"
    assert all(
        cell["text"].strip() not in ("", "–", "-", "nan", "None") for _, row in rows.items() for cell in row.values()
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_method_has_every_item_of_a_checklist_and_what_answers_it(name, read):
    source = read["method.html"].source.partition(f'<h3 id="{name}">')[2].partition("<h3")[0]
    lines = re.findall(r'<tr>\s*<th scope="row".*?</tr>', source, re.DOTALL)
    rows = [[text for tag, _, text in Page(row).elements if tag in ("th", "td")] for row in lines]
    items = read_checklist(name).items
    assert [row[0] for row in rows] == [item.line for item in items]
    for (_, kind, which), item in zip(rows, items, strict=True):
        sources = {"audit": "; ".join(item.audit), "results": item.field.replace("_", " "), "by hand": item.hand}
        assert {k: v for k, v in sources.items() if v} == {kind: which}
    counts = [sum(row[1] == kind for row in rows) for kind in ("results", "audit", "by hand")]
    assert "{} answered by results, {} by audits, {} by hand".format(*counts) in source


def test_every_link_and_anchor_leads_somewhere(site, read):
    anchors = {path: {*page.ids} for path, page in read.items()}
    count = 0
    for path, page in read.items():
        for _, attributes, _ in page.all("a"):
            address = attributes["href"]
            if address.startswith("http"):
                assert attributes["rel"] == "noreferrer"
                continue
            file, _, anchor = address.partition("#")
            target = (site / path).parent / file if file else site / path
            assert target.is_file(), f"{path} links {address}"
            if anchor and "=" not in anchor:  # "#a=adp" is a choice
                assert anchor in anchors[target.resolve().relative_to(site.resolve()).as_posix()], f"{path}: {address}"
            count += 1
    assert count > 200


def test_no_page_asks_for_anything_from_elsewhere(site, read):
    for path, page in read.items():
        assert page.all("meta")[2][1] == {"http-equiv": "Content-Security-Policy", "content": CSP}
        for tag, attributes, _ in page.elements:
            assert "style" not in attributes, path
            assert not [name for name in attributes if name.startswith("on")], path
            if tag == "image":
                assert re.fullmatch(r"\.\./\.\./i/[0-9a-f]+\.png", attributes["href"])
            if tag == "img":
                assert re.fullmatch(r"(\.\./)*p/[a-z0-9/-]+\.svg", attributes["src"])
                assert attributes["alt"], path
                assert ((site / path).parent / attributes["src"]).is_file(), path
            if tag in ("script", "link"):
                assert re.fullmatch(r"(\.\./)*assets/site\.(css|js)", attributes.get("src") or attributes["href"])
    for asset in (site / "assets").iterdir():
        assert not re.search(r"https?://|@import|url\(|\beval\b|innerHTML|fetch\(", asset.read_text())


def test_pages_are_well_formed(read):
    for path, page in read.items():
        assert len(page.ids) == len({*page.ids}), path
        assert [len(page.all(tag)) for tag in ("h1", "main", "title", "footer")] == [1, 1, 1, 1], path
        assert all(attributes.get("scope") in ("row", "col") for _, attributes, _ in page.all("th")), path
        assert "loads nothing from elsewhere" in page.all("footer")[0][2]


def test_hostile_names_do_no_harm(site, read):
    files = [file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()]
    assert all(re.fullmatch(r"[a-z0-9/.-]+", file) and ".." not in file for file in files)
    assert len({file.lower() for file in files}) == len(files)
    assert len([file for file in files if file.startswith("b/hostile/")]) == 23
    for path, page in read.items():
        assert len(page.all("script")) == 1, path
        assert not re.search("[\u202e\x1b]", page.source)
        assert not [a for _, a, _ in page.all("a") if a["href"].startswith("javascript")]
    labels = [label for label, _ in board_rows(read["b/hostile/index.html"])]
    assert [label for label in labels if label.startswith('</td><script>alert("1")')]
    assert "x" * 200 in labels
    frame = pd.read_csv(site / "data/leaderboard.csv")
    assert "'=1+1" in set(frame["defense"])
    rows = json.loads((site / "data/leaderboard.json").read_text())["rows"]
    assert len(rows) == len(frame)


def test_data_files_are_the_frames(site):
    frame, whole = pd.read_csv(site / "data/leaderboard.csv"), leaderboard(*COMMITTED)
    mine = frame[frame["board"].isin(["digits-audit", "digits-gan"])]
    assert mine["worst_mean"].tolist() == whole["worst_mean"].tolist()
    assert mine["rank_high"].fillna(0).tolist() == whole["rank_high"].fillna(0).tolist()
    assert len(pd.read_csv(site / "data/claims.csv")) == len(claims_table(COMMITTED))
    audits = pd.read_csv(site / "data/audits.csv")
    assert json.loads(audits["numbers"][0])


BOARDS = {
    "empty": lambda folder: write(folder, [], plan=[line("a", "none"), line("a", "apgd")]),
    "errors": lambda folder: write(
        folder, [failed(line("a", "none"), "error", "x"), failed(line("a", "b"), "error", "x")]
    ),
    "one": lambda folder: write(folder, [result(line("a", "b", images=1), [1])]),
    "random": lambda folder: write(folder, stochastic()),
    "targeted": lambda folder: write(folder, deterministic(targets="3")),
    "radii": lambda folder: write(folder, deterministic() + deterministic(eps="1/3")),
    "seeds": lambda folder: write(folder, [r for s in (0, 1) for r in deterministic(training_seed=s)]),
    "minimisation": lambda folder: write(folder, deterministic(minimisation=True)),
}


@pytest.mark.parametrize("name", BOARDS)
def test_every_kind_of_board_has_pages(name, tmp_path):
    if name == "seeds":
        folder = BOARDS[name](tmp_path / name)
        manifest = {
            "defenses": {
                "plain#0": {"name": "plain", "training_seed": 0},
                "plain#1": {"name": "plain", "training_seed": 1},
            }
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
    else:
        folder = BOARDS[name](tmp_path / name)
    build_site([folder], tmp_path / "site")
    read = pages(tmp_path / "site")
    boards = sorted(path for path in read if path.startswith("b/") and path.endswith("/index.html"))
    assert len(boards) == (2 if name == "radii" else 1)
    frame = leaderboard(folder)
    assert sum(len(board_rows(read[path])) for path in boards) == len(frame)
    if name == "radii":
        assert boards == ["b/radii-linf-1-3/index.html", "b/radii-linf-1-5/index.html"]
    if name in ("empty", "errors"):
        assert "No verdict yet" in read[f"b/{name}/a.html"].source


def test_names_of_files_depend_on_no_other_name_but_for_those_alike():
    assert slugs(["adp", "A b", "a-b", "index", "é", "adp-images", "../x"])[0] == "adp"
    found = slugs(["adp", "A b", "a-b", "index", "é", "adp-images", "../x"])
    assert len({*found}) == 7
    assert found[6] == "x"
    assert slugs(["A b"]) == ["a-b"]
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in found)
    assert found[3].startswith("index-")
    assert found[5].startswith("adp-images-")


def test_a_defense_without_a_card_is_shown_and_says_so(tmp_path):
    """As one of somebody else's, or of another version."""
    folder = write(tmp_path / "cards", deterministic("mine") + deterministic("theirs"))
    defenses = {"mine": {"name": "gone"}, "theirs": {"name": "adp"}}
    (folder / "manifest.json").write_text(json.dumps({"defenses": defenses}))
    frame = leaderboard(folder).set_index("defense")
    assert frame["paper"].str.len().gt(0).to_dict() == {"mine": False, "theirs": True}
    assert frame["worst_mean"].nunique() == 1
    build_site([folder], tmp_path / "site")
    read = pages(tmp_path / "site")
    rows = dict(board_rows(read["b/cards/index.html"]))
    assert {label: (r["year"]["text"], r["venue"]["text"]) for label, r in rows.items()} == {
        "mine": ("none", "none"),
        "theirs": ("2021", "ICML 2021"),
    }
    mark = "none; its paper and licence are not known"
    assert [read[f"b/cards/{name}.html"].source.count(mark) for name in rows] == [
        1 - (name == "theirs") for name in rows
    ]
