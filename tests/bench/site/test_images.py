"""Pages of images: verdicts of `load_results`, pictures of the stored arrays, the same bytes again."""

import gzip
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from fake_board import deterministic, line, result, stochastic, write
from PIL import Image
from site_pages import COMMITTED, Page, pages

from bench import load_images, load_results, summary
from bench.analysis.worst_case import worst_per_image
from bench.cli.main import main
from bench.site.build import GALLERY, build_site
from bench.site.evidence import STATES
from bench.site.gallery import file_name
from bench.site.sheets import ACROSS, BYTES, GAP, GREY, difference, fitting, sheet_of
from bench.spec.view_words import view_words

AUDIT = COMMITTED[0]


def matrix(source):
    """Rows of the table: {index: (state, label, texts of the cells)}, and the titles of the attacks."""
    table = source.partition('<table id="images"')[2].partition("</table>")[0]
    views = re.findall(r'<th scope="col" title="([^"]*)"', table)
    rows = {}
    for name, states, label, cells in re.findall(
        r'<tr id="i(\d+)" data-state="([^"]+)" data-label="(-?\d+)">(.*?)</tr>', table
    ):
        rows[int(name)] = (set(states.split()), int(label), [t for tag, _, t in Page(cells).elements if tag == "td"])
    return rows, views


def attacked(folder, defense):
    frame = load_results(folder)
    mine = frame[(frame["defense"] == defense) & ~frame["attack"].isin(["none", "uniform"])]
    return mine.assign(name=mine["attack"] + "|" + mine["view"])


def shown(share):
    return f"{share:.0f}" if share in (0, 1) else f"{share:.2f}"


@pytest.mark.parametrize("defense", ["adp", "pgd-at", "broken: randomness"])
def test_a_matrix_has_the_verdicts_of_the_records(defense, site):
    slug = re.sub("[^a-z]+", "-", defense)
    rows, views = matrix((site / f"b/digits-audit/{slug}-images.html").read_text())
    frame = attacked(AUDIT, defense)
    shares = frame.pivot(index="image", columns="name", values="accuracy")[list(dict.fromkeys(frame["name"]))]
    clean = frame.drop_duplicates("image").set_index("image")["clean"]
    assert [view_words(name.partition("|")[2]) for name in shares] == views
    assert list(rows) == sorted(shares.index)
    worst = worst_per_image(AUDIT)
    worst = worst[worst["defense"] == defense].set_index("image")
    for index, (_, label, texts) in rows.items():
        assert label == worst.loc[index, "label"]
        expected = [str(label), *map(shown, [clean[index], *shares.loc[index], worst.loc[index, "robust"]])]
        assert [text.split()[0] for text in texts[: len(expected)]] == expected
        broken = (shares.loc[index] < 0.5) & (clean[index] > 0.5)
        assert [("✗" in t) or ("⊘" in t) for t in texts[2 : 2 + len(views)]] == broken.tolist()


@pytest.mark.parametrize("defense", ["adp", "pgd-at", "undefended"])
def test_states_of_images_are_those_of_the_records(defense, site):
    board = "digits-gan" if defense == "undefended" else "digits-audit"
    rows, _ = matrix((site / f"b/{board}/{defense}-images.html").read_text())
    frame = attacked(COMMITTED[board == "digits-gan"], defense)
    wrong = set(frame[frame["clean"] <= 0.5]["image"])
    broken = frame[(frame["accuracy"] < 0.5) & (frame["clean"] > 0.5)].groupby("image")["gradient"].agg(set)
    only = set(broken[broken.map(lambda modes: "blind" not in modes)].index)
    only = only if (frame["gradient"] == "blind").any() else set()  # nothing to tell them apart by
    found = {state: {index for index, (states, *_) in rows.items() if state in states} for state in STATES}
    expected = {"broken": {*broken.index}, "only": only, "wrong": wrong, "none": {*rows} - wrong - {*broken.index}}
    assert found == expected
    assert found["broken"]
    text = (site / f"b/{board}/{defense}-images.html").read_text()
    assert f"Attacks break {len(broken)} of {len(rows)} images" in text
    assert f"every attack: {len(found['none'])}. Wrong without any attack: {len(wrong)}." in text
    random = bool(frame["stochastic"].any())
    assert ("Share of the held-out draws" in text) == random
    assert ("0 where it does not" in text) != random


def test_the_deciding_attack_is_that_of_the_worst_case(site):
    rows, _ = matrix((site / "b/digits-audit/adp-images.html").read_text())
    worst = worst_per_image(AUDIT)
    worst = worst[worst["defense"] == "adp"].set_index("image")
    frame = attacked(AUDIT, "adp").set_index(["image", "attack", "view"])
    for index, (_, _, texts) in rows.items():
        attack, view, robust = worst.loc[index, ["attack", "view", "robust"]]
        if robust == 1:
            assert texts[-2:] == ["none", ""]
        elif attack == "none":
            assert texts[-2:] == ["clean image", ""]
        else:
            assert attack.startswith(texts[-2].partition(",")[0])
            assert texts[-1] == f"{frame.loc[(index, attack, view), 'linf']:.3f}"


def test_the_file_of_all_images_is_the_records(site):
    frame = pd.read_csv(site / "data/images-digits-audit.csv.gz")
    whole = load_results(AUDIT)
    whole = whole[~whole["attack"].isin(["none", "uniform"])]
    keys = ["defense", "attack", "view", "image"]
    both = frame.merge(whole, on=keys, suffixes=("", "_of"))
    assert len(both) == len(frame) == len(whole)
    assert (both["withstood"] - both["accuracy"]).abs().max() < 1e-12
    assert (both["size"] - both["linf"]).abs().max() == 0
    assert (both["breaks"] == (both["accuracy"] < 0.5) & (both["clean_of"] > 0.5)).all()
    assert frame.groupby(["defense", "image"])["decides"].sum().max() == 1


def panels(site, source, place):
    """Pixels of the panels of a figure, cut out of the sheet as the page does."""
    figure = source.split("<figure>")[1 + place].partition("</figure>")[0]
    box, sheet = re.search(r'viewBox="([\d ]+)".*?(?:<use href="#|<image id=")([\w-]+)"', figure).groups()
    ((file, *whole),) = re.findall(
        rf'<image id="{sheet}" href="\.\./\.\./(i/\w+\.png)" width="(\d+)" height="(\d+)"/>', source
    )
    x, y, width, height = map(int, box.split())
    sheet = np.asarray(Image.open(site / file)).astype(int)
    assert sheet.shape[:2] == tuple(map(int, reversed(whole)))
    row = sheet[y : y + height, x : x + width]
    side = (width - 2 * GAP) // 3
    assert (row[:, side : side + GAP] == GREY).all()
    return figure, [row[:, at : at + side] for at in range(0, width, side + GAP)]


def test_pictures_are_the_stored_arrays(site):
    source = (site / "b/digits-audit/adp-images.html").read_text()
    gallery = source.partition('<h2 id="gallery">')[2].split("<details")
    checked = 0
    for text in gallery[1:]:
        attack, words = re.search(r"<summary>(.*?), (.*?)( <small>.*)?</summary>", text).groups()[:2]
        (view,) = {view for view in attacked(AUDIT, "adp")["view"] if view_words(view) == words}
        images = load_images(AUDIT, "adp", attack, view)
        for place in range(len(text.split("<figure>")) - 1):
            figure, (clean, attacked_, change) = panels(site, text, place)
            at = int(np.flatnonzero(images.index == int(re.search(r"i(\d+)\"", figure)[1]))[0])
            assert np.array_equal(clean, np.round(255 * images.clean[at, 0]))
            assert np.array_equal(attacked_, np.round(255 * images.adversarial[at, 0]))
            step = (images.adversarial[at, 0].astype(float) - images.clean[at, 0]) / 0.2
            assert np.abs(change - np.round(GREY + 127 * np.clip(step, -1, 1))).max() == 0
            said = re.sub("<[^>]+>", "", figure.partition("<figcaption>")[2])
            label, found = images.labels[at], images.predictions[at]
            assert f": {label} → {found} in " in said if label != found else f": {label} stays {label} in " in said
            votes = int(re.search(r"in (\d+) of 15 draws, Linf\s0\.\d{3}", said)[1])
            assert votes == 15 * images.shares[at] if label == found else votes >= 1
            checked += 1
    assert checked == 2 * GALLERY


def test_broken_images_come_first(site):
    source = (site / "b/digits-audit/pgd-at-images.html").read_text()
    rows, _ = matrix(source)
    for text in source.partition('<h2 id="gallery">')[2].split("<details")[1:]:
        places = [int(i) for i in re.findall(r'href="#i(\d+)"', text)]
        right = ["stays" in t for t in re.findall(r"<figcaption>(.*?)</figcaption>", text)]
        wrong = ["wrong" in rows[index][0] for index in places]
        order = list(zip(wrong, right, strict=True))
        assert [w for w, _ in order] == sorted(w for w, _ in order)
        assert [r for w, r in order if not w] == sorted(r for w, r in order if not w)


def test_every_picture_is_a_file_without_metadata_of_at_most_150_kb(site):
    used = set()
    for path, page in pages(site).items():
        for _, attributes, _ in page.all("image"):
            assert re.fullmatch(r"\.\./\.\./i/[0-9a-f]+\.png", attributes["href"]), path
            used.add(attributes["href"].removeprefix("../../"))
    files = {file.relative_to(site).as_posix() for file in (site / "i").iterdir()}
    assert used == files
    for file in files:
        data = (site / file).read_bytes()
        assert len(data) <= BYTES
        assert Image.open(io.BytesIO(data)).info == {}
        assert not re.search(rb"tEXt|iTXt|zTXt|tIME|eXIf", data)


def test_a_row_shows_pictures_parameters_and_keys(site):
    page = Page((site / "b/digits-audit/adp.html").read_text())
    assert len([of for _, of, _ in page.all("figure") if of.get("class") != "plot"]) == 12
    text = page.all("details")[0][2]
    lines = [json.loads(t) for f in (AUDIT / "parts").glob("*adp*/cells.jsonl") for t in f.read_text().splitlines()]
    assert len(lines) == 8
    assert all(cell["key"] in text for cell in lines)
    assert "foolbox:LinfPGD of foolbox 3.3.4: rel_stepsize = 1/16, steps = 40; white-box, seed 0" in text


def test_without_pictures_there_are_none(tmp_path):
    folder = write(tmp_path / "one", deterministic())
    assert main(["site", str(folder), "--out", str(tmp_path / "site"), "--gallery", "0", "--quiet"]) == 0
    assert not (tmp_path / "site/i").exists()
    assert "<image" not in (tmp_path / "site/b/one/plain-images.html").read_text()
    assert main(["site", str(folder), "--out", str(tmp_path / "site"), "--quiet"]) == 0  # another site than before
    assert list((tmp_path / "site/i").iterdir())


def test_a_bad_number_of_pictures_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["site", str(tmp_path), "--gallery", "-1"])
    assert "-1 is not a whole number, at least 0" in capsys.readouterr().err


def without_arrays(folder, *, only=None):
    from safetensors.numpy import load_file, save

    from bench.store.parts import sha256

    for part in (folder / "parts").iterdir():
        sums, file = json.loads((part / "checksums.json").read_text()), part / "adversarial.safetensors"
        lines = {c["key"]: c["attack"] for c in map(json.loads, (part / "cells.jsonl").read_text().splitlines())}
        kept = {k: v for k, v in load_file(file).items() if only is not None and lines[k] != only}
        file.unlink()
        del sums["adversarial.safetensors"]
        if kept:
            file.write_bytes(save(kept))
            sums["adversarial.safetensors"] = sha256(file)
        (part / "checksums.json").write_text(json.dumps(sums))
    return folder


def test_where_arrays_are_missing_the_page_says_so(tmp_path):
    folder = without_arrays(write(tmp_path / "none", deterministic()))
    clean = without_arrays(write(tmp_path / "clean", deterministic()), only="none")
    build_site([folder, clean], tmp_path / "site")
    source = (tmp_path / "site/b/none/plain-images.html").read_text()
    assert source.count("No pictures: no images are stored of this attack.") == 2
    assert "<image" not in source
    assert "No pictures: none are stored." in (tmp_path / "site/b/none/plain.html").read_text()
    alone = (tmp_path / "site/b/clean/plain-images.html").read_text()
    assert "The adversarial images alone: no clean images are stored of this defense." in alone
    assert all(figure.count("<image") + figure.count("<use") == 1 for figure in alone.split("<figure>")[1:])
    assert alone.count("<image") == alone.count('<details class="sheet"') > 0


def test_of_many_images_the_first_thousand_are_shown_and_all_are_in_the_file(tmp_path):
    right = [int(i % 3 != 0) for i in range(1200)]
    rows = [result(line("plain", a, images=1200), r) for a, r in (("none", [1] * 1200), ("apgd", right))]
    build_site([write(tmp_path / "wide", rows)], tmp_path / "site")
    source = (tmp_path / "site/b/wide/plain-images.html").read_text()
    rows, _ = matrix(source)
    assert list(rows) == list(range(1000))
    assert "The first 1000 of 1200 images" in source
    assert len(pd.read_csv(tmp_path / "site/data/images-wide.csv.gz")) == 1200
    assert "Attacks break 400 of 1200 images" in source


def test_images_of_several_trainings_have_anchors_of_their_own(tmp_path):
    folder = write(tmp_path / "seeds", [r for s in (0, 1) for r in deterministic(training_seed=s)])
    manifest = {"defenses": {f"plain#{s}": {"name": "plain", "training_seed": s} for s in (0, 1)}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    build_site([folder], tmp_path / "site")
    source = (tmp_path / "site/b/seeds/plain-images.html").read_text()
    assert re.findall(r'<tr id="([^"]+)"', source) == [*[f"i{i}" for i in range(6)], *[f"i{i}-t1" for i in range(6)]]


def test_draws_and_refusals_are_said(tmp_path):
    folder = write(tmp_path / "random", stochastic())
    build_site([folder], tmp_path / "site")
    source = (tmp_path / "site/b/random/noisy-images.html").read_text()
    rows, _ = matrix(source)
    assert [texts[2] for _, _, texts in rows.values()] == ["1", "0.60", "0.40 ✗", "0 ✗", "0.60", "0.20"]
    assert rows[5][0] == {"wrong"}
    assert "0 → 1 in 9 of 15 draws, Linf\N{NO-BREAK SPACE}0.200" in re.sub("<[^>]+>", "", source)
    gone = deterministic()
    gone[2] = result(line("plain", "apgd"), [1, 0, 0, 0, 1, 0], rejected=np.array([0, 1, 0, 0, 0, 0], np.int32))
    build_site([write(tmp_path / "refused", gone)], tmp_path / "other")
    rows, _ = matrix((tmp_path / "other/b/refused/plain-images.html").read_text())
    assert [texts[2] for _, _, texts in rows.values()] == ["1", "0 ⊘", "0 ✗", "0 ✗", "1", "0"]


def test_the_same_pictures_and_files_are_made_again(tmp_path):
    folder = write(tmp_path / "one", stochastic())
    for name in ("a", "b"):
        build_site([folder], tmp_path / name)
    files = [f.relative_to(tmp_path / "a") for kind in ("*.png", "*.gz") for f in (tmp_path / "a").rglob(kind)]
    assert len(files) == 3
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    packed = (tmp_path / "a/data/images-one.csv.gz").read_bytes()
    assert packed[4:8] == b"\0\0\0\0"  # no time
    assert gzip.decompress(packed).startswith(b"defense,training_seed,attack")


def test_large_images_are_scaled_down_and_a_sheet_stays_small():
    noise = np.random.default_rng(0).random((48, 3, 224, 192)).astype(np.float32)
    small = fitting(noise)
    assert small.shape == (48, 3, 96, 82)
    assert abs(small.mean() - noise.mean()) < 1e-3
    assert np.allclose(fitting(np.full((1, 1, 192, 192), 0.3, np.float32)), 0.3)
    sheet = sheet_of(list(small), list(small), 0.1)
    assert len(sheet.png) <= BYTES
    assert 1 <= sheet.count < 48
    assert Image.open(io.BytesIO(sheet.png)).size == sheet.size
    thumbs = fitting(noise[:, :, :32, :32])
    assert np.array_equal(thumbs, noise[:, :, :32, :32])


def test_a_difference_is_grey_where_there_is_none():
    clean = np.zeros((1, 1, 4), np.float32)
    moved = np.array([[[0, 0.1, 0.2, 1]]], np.float32)
    assert difference(clean, moved, 0.2).ravel().tolist() == [GREY, round(GREY + 63.5), 255, 255]
    assert difference(moved, clean, 0.2).ravel().tolist()[-1] == 1
    sheet = sheet_of([clean] * 20, [moved] * 20, 0.2)
    assert sheet.size == ((3 * 4 + 2) * ACROSS, 3)
    assert sheet.place(9) == (3 * 4 + 2, 1)


def test_a_key_of_somebody_elses_makes_no_path():
    assert file_name("acdd9e427be52d6a6175") == "acdd9e427be52d6a6175"
    for key in ("../../x", "", "a" * 300, "A/b"):
        assert re.fullmatch("[0-9a-f]{20}", file_name(key))


def test_rows_of_the_summary_agree_with_the_matrix(site):
    frame = summary(COMMITTED[1])
    images = pd.read_csv(site / "data/images-digits-gan.csv.gz")
    means = images.groupby(["defense", "attack", "view"])["withstood"].mean()
    for name, mean in means.items():
        row = frame[(frame["defense"] == name[0]) & (frame["attack"] == name[1]) & (frame["view"] == name[2])]
        assert abs(float(row["robust_mean"].iloc[0]) - mean) < 1e-12
