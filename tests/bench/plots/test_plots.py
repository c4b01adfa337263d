"""Pictures show the numbers of their frames, in colours that stand out, and are the same bytes each time."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import bench
from bench.analysis.images import Images
from bench.evaluation.trajectory import purification_trajectory
from bench.plots import (
    adversarial_grid,
    attacks,
    audit,
    certified,
    checks,
    claims,
    clean_robust,
    contraction,
    convergence,
    corruptions,
    cost,
    draws,
    margin_bins,
    margins,
    matrix,
    radius,
    ranks,
    save,
    style,
    trajectory,
)
from bench.plots.attacks import majority_curves, submission_curves
from bench.plots.checks import check_rows
from bench.plots.style import _DARK, COLOURS, FORMATS, INK, MUTED, PAPER, file_bytes
from bench.stats.proportions import rob_at_m
from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
HOSTILE = "<script>alert('x')</script> $\\alpha & \"é\" ‮"


@pytest.fixture(scope="module")
def leaders():
    return bench.leaderboard(RESULTS / "digits-linf")


@pytest.fixture(scope="module")
def audits():
    return bench.load_audits(RESULTS / "digits-audit")


def points(ax) -> list[np.ndarray]:
    """The points of all lines with markers, [N, 2] each."""
    return [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", "|", "_", "")]


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap."""
    figure.draw_without_rendering()
    shown = [t for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown if t.get_window_extent().width > 1]
    boxes = [(text, box.padded(-1)) for text, box in boxes if figure.bbox.overlaps(box)]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
    return [(one, other) for (one, first), (other, second) in pairs if one != other and first.overlaps(second)]


def test_ranks_shows_the_leaderboard(leaders):
    ax = ranks(leaders)
    clean, worst = points(ax)
    assert np.allclose(clean[:, 0], 100 * leaders["clean_mean"])
    assert np.allclose(worst[:, 0], 100 * leaders["worst_mean"])
    assert [t.get_text().split(" · ")[0] for t in ax.get_yticklabels()] == list(leaders["defense"])
    (bars,) = ax.containers
    ends = np.array([segment[:, 0] for segment in bars[2][0].get_segments()])
    assert np.allclose(ends, 100 * leaders[["worst_low", "worst_high"]].to_numpy())


def test_groups_of_ranks_that_overlap_share_a_shade(leaders):
    """Ranges 1-2, 1-2, 3-3 are two groups, of which the first is shaded; a row without a rank is in none."""
    frame = leaders.assign(rank_low=[1, 1, 3, None], rank_high=[2, 2, 3, None]).astype({"rank_low": "Int64"})
    ax = ranks(frame.astype({"rank_high": "Int64"}))
    spans = [(p.get_y(), p.get_y() + p.get_height()) for p in ax.patches]
    assert spans == [(-0.5, 1.5)]
    assert ax.get_yticklabels()[3].get_text().endswith("no rank")


def test_rows_of_two_threats_are_refused(leaders):
    with pytest.raises(UserError, match="the rows differ in eps; choose those of one board and threat"):
        ranks(pd.concat([leaders, leaders.assign(eps="1/10")]))
    with pytest.raises(UserError, match="no row has a worst case"):
        clean_robust(leaders.head(0))
    with pytest.raises(UserError, match='unit is "hours"'):
        cost(leaders, unit="hours")


@pytest.mark.parametrize("board", ["digits-linf", "digits-defenses"])
@pytest.mark.parametrize("draw", [ranks, clean_robust, cost])
def test_texts_do_not_overlap(board, draw):
    figure = draw(bench.leaderboard(RESULTS / board)).get_figure()
    assert texts_overlap(figure) == []


def test_clean_robust_and_cost_show_the_leaderboard(leaders):
    for draw, column, factor in ((clean_robust, "clean_mean", 100), (cost, "evaluations_per_image", 1)):
        shown = np.concatenate(points(draw(leaders)))
        wanted = np.column_stack([factor * leaders[column], 100 * leaders["worst_mean"]])
        assert np.allclose(sorted(map(tuple, shown)), sorted(map(tuple, wanted)))


def test_attacks_are_sorted_and_show_the_summary():
    frame = bench.summary(RESULTS / "digits-linf")
    ax = attacks(frame, defense="adp")
    shown = [xy[0] for xy in np.concatenate(points(ax)) if len(points(ax))]
    rows = frame[(frame["defense"] == "adp")]
    assert np.allclose(sorted(shown), sorted(100 * rows["robust_mean"]))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "worst case"
    assert names[-2:] == ["clean images", "uniform noise"]
    with pytest.raises(UserError, match=r"name one defense: undefended, pgd-at"):
        attacks(frame)
    with pytest.raises(UserError, match='no defense "x"'):
        attacks(frame, defense="x")


def test_draws_shows_rob_at_m():
    records = bench.load_results(RESULTS / "digits-linf")
    ax = draws(records, defense="adp")
    of = records[(records["defense"] == "adp") & (records["attack"] == "none")]
    wanted = [100 * rob_at_m(of["correct"], of["draws"], m).mean() for m in range(1, 16)]
    by_label = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert np.allclose(by_label["clean images"], wanted)
    assert len(by_label) == 5  # clean images and the four strongest attacks
    with pytest.raises(UserError, match="no image has more than one draw"):
        draws(records, defense="pgd-at")


def test_draws_shows_the_majority_of_tables():
    """The majority of all draws is that of the summary, and of one draw its first; odd numbers only."""
    records, votes = (read(RESULTS / "digits-linf") for read in (bench.load_results, bench.load_draws))
    records = records[records["defense"] == "adp"]
    curves = majority_curves(records[records["draws"] > 1], votes, attacks=None, submissions=99)
    summary = bench.summary(RESULTS / "digits-linf").query("defense == 'adp' and attack != 'worst case'")
    last = curves.groupby("attack", sort=False).tail(1)
    assert sorted(last["share"]) == pytest.approx(sorted(summary["majority"]))
    assert set(last["m"]) == {int(records["draws"].max())}
    assert set(curves["m"] % 2) == {1}
    first = (
        votes[(votes["defense"] == "adp") & (votes["attack"] == "none") & votes["held_out"]]
        .sort_values("draw", kind="stable")
        .drop_duplicates("image")
    )
    labels = records[records["attack"] == "none"].set_index("image")["label"]
    share = (first.set_index("image")["pred"] == labels).mean()
    assert curves[(curves["attack"] == "clean images") & (curves["m"] == 1)]["share"].tolist() == pytest.approx([share])
    ax = draws(records, votes=votes)
    dashed = {tuple(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--" and len(line.get_xdata())}
    assert dashed == {tuple(range(1, 16, 2))}
    assert ax.get_ylabel() == "accuracy (%)"


def test_a_refusal_is_a_class_of_its_own_and_a_tie_is_wrong():
    records = records_of(image=0, label=7).head(1)
    votes = pd.DataFrame({"defense": "d", "training_seed": 0, "attack": "a", "view": "", "norm": "Linf", "eps": "1/5",
                          "image": 0, "draw": range(6), "held_out": [False] + [True] * 5, "pred": [1, 7, 7, 7, 3, 7],
                          "rejected": [False, False, True, True, False, False]})  # fmt: skip
    curves = majority_curves(records, votes)
    assert dict(zip(curves["m"], curves["share"], strict=True)) == {1: 1.0, 3: 0.0, 5: 0.0}
    assert majority_curves(records.assign(targets="random"), votes).empty


def records_of(**columns):
    """Ten images of a random defense under one attack, 20 draws each."""
    frame = pd.DataFrame({"image": range(10), "attack": "a", "view": "", "targets": "none", "draws": 20, "correct": 10})
    return frame.assign(**{"hits": 0, "defense": "d", "dataset": "x", "split": "test", "norm": "Linf", "eps": "1/5",
                           "status": "ok", **columns})  # fmt: skip


def test_draws_that_never_give_the_target_withstand():
    curves = submission_curves(records_of(targets="random", correct=0, hits=0))
    assert curves["share"].eq(1).all()
    ax = draws(records_of(targets="random", correct=0))
    assert ax.get_ylabel() == "none of them gives the target (%)"


def test_trainings_are_no_further_images():
    one = submission_curves(records_of()).query("m == 1")
    three = submission_curves(pd.concat([records_of(training_seed=seed) for seed in range(3)])).query("m == 1")
    assert one[["share", "low", "high"]].to_numpy().tolist() == three[["share", "low", "high"]].to_numpy().tolist()


def right_shares(ax) -> np.ndarray:
    """Shares of right draws that a matrix shows, [defenses, images]: what its colours leave transparent."""
    return 1 - np.asarray(ax.images[0].get_array())[..., 3]


def test_images_without_a_verdict_are_not_drawn_as_wrong():
    worst = bench.worst_per_image(RESULTS / "digits-linf").query("defense == 'pgd-at'")
    many = pd.concat([worst.assign(image=worst["image"] + 1000 * i) for i in range(3)])
    few = many[many["image"] < 1000].assign(defense="few", accuracy=1.0)
    ax = matrix(pd.concat([many, few]))
    assert right_shares(ax)[0].min() == 1  # "few", the best
    unjudged = np.asarray(ax.images[1].get_array())[..., 3] > 0
    assert not unjudged[1].any()
    assert 0 < unjudged[0].sum() < unjudged.shape[1]
    assert "no verdict" in [text.get_text() for text in ax.get_figure().legends[0].get_texts()]
    assert len(matrix(worst).images) == 1


def drawn_by(ax) -> dict[str, np.ndarray]:
    """The cells of a matrix in the colour of each entry of its legend, strength included."""
    cells = np.asarray(ax.images[0].get_array())
    entries = {line.get_label(): line.get_color() for line in ax.lines}
    return {
        name: np.isclose(cells[..., :3], to_rgb(colour)).all(-1) * cells[..., 3] for name, colour in entries.items()
    }


def test_matrix_shows_who_breaks():
    """Two attacks and an image that is wrong without one; with several trainings the mean is drawn."""
    frame = pd.DataFrame({
        "defense": "d", "training_seed": [0] * 5 + [1], "image": [0, 1, 2, 3, 4, 0],
        "attack": ["a", "a", "b", "none", "a", "b"], "clean": [1.0, 1.0, 1.0, 0.0, 1.0, 1.0],
        "accuracy": [0.5, 0.0, 0.25, 0.0, 1.0, 0.75], "dataset": "x", "split": "test", "indices": "i", "norm": "Linf",
        "eps": "1/5", "targets": "none",
    })  # fmt: skip
    ax = matrix(frame)
    images = [4, 0, 2, 1, 3]  # the easiest first
    assert right_shares(ax).tolist() == [[1.0, 0.625, 0.25, 0.0, 0.0]]
    wanted = {"a": [0, 0.375, 0, 1, 0], "b": [0, 0, 0.75, 0, 0], "wrong without an attack": [0, 0, 0, 0, 1]}
    assert {name: of[0].tolist() for name, of in drawn_by(ax).items()} == wanted, images
    worst = bench.worst_per_image(RESULTS / "digits-defenses")
    shown = drawn_by(matrix(worst))
    best, losing = worst[worst["defense"] == "trades"], ("autoattack:standard", "transfer")
    for name in losing:
        of = best[(best["attack"] == name) & (best["accuracy"] < best["clean"])]
        assert shown[name][0].sum() == len(of) > 0
    assert sum(of.sum() for of in shown.values()) == pytest.approx((1 - worst["accuracy"]).sum())
    assert "5 others" in shown


def test_two_pictures_in_one_figure_have_a_legend_each(leaders):
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    ranks(leaders, ax=left)
    clean_robust(leaders, ax=right)
    assert not figure.legends
    texts = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (left, right)]
    assert texts == [["clean accuracy", "worst case, 95 %"], ["deterministic", "random"]]


def test_further_gradient_modes_have_shapes_of_their_own():
    frame = bench.summary(RESULTS / "digits-linf").query("defense == 'adp'").copy()
    modes = ["", "", "blind", "surrogate:25", "bpda", "exact", "smooth:1/100", "bpda", "exact", "", ""]
    frame["gradient"] = modes
    ax = attacks(frame)
    kept = {line.get_label(): line.get_marker() for line in ax.lines if "gradients" in str(line.get_label())}
    assert list(kept)[:3] == ["exact gradients", "bpda gradients", "blind gradients"]
    assert len(set(kept.values())) == len(kept) == 6


def test_ranks_are_not_cut_off(leaders):
    frame = leaders.assign(defense=["a very long name of a defense " * 3, "b", "c", "d"])
    labels = [label.get_text() for label in ranks(frame).get_yticklabels()]
    assert labels[0].endswith("… · 1")
    assert labels[1] == "b · 2"


def test_matrix_shows_shares_of_images_and_bins_many():
    worst = bench.worst_per_image(RESULTS / "digits-linf")
    values = right_shares(matrix(worst))
    assert values.shape == (4, 500)
    assert np.allclose(values.mean(1), sorted(worst.groupby("defense")["accuracy"].mean(), reverse=True))
    many = pd.concat([worst, worst.assign(image=worst["image"] + 1000), worst.assign(image=worst["image"] + 2000)])
    binned = right_shares(matrix(many))
    assert binned.shape == (4, 500)
    assert np.allclose(binned.mean(1), values.mean(1))


def test_audits(audits):
    ax = audit(audits)
    symbols = [t.get_text() for t in ax.texts]
    assert symbols.count("✗") == (audits["status"] == "fail").sum()
    assert symbols.count("✓") == (audits["status"] == "pass").sum()
    curve = radius(audits).lines[0].get_xydata()
    assert np.allclose(curve, [[0.1, 84.5], [0.2, 61.5], [0.3, 12.5], [0.5, 0], [1, 0]])
    effort = convergence(audits).lines[0].get_ydata()
    assert np.allclose(effort, [71, 61.5, 61.5, 59])
    for draw in (audit, radius, convergence):
        with pytest.raises(UserError, match=r"^no audit"):
            draw(audits.head(0))


def test_checks_fail_where_their_interval_is_in_the_shade(audits):
    ax = checks(audits)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == 13
    shades = {names[round(p.get_y() + 0.46)]: (p.get_x(), p.get_x() + p.get_width()) for p in ax.patches}
    status = audits.set_index(["defense", "check"])["status"]
    seen = 0
    for container in ax.containers:
        line, _, (bars,) = container
        for (_, y), ends in zip(line.get_xydata(), bars.get_segments(), strict=True):
            low, high = shades[names[round(y)]]
            inside = bool(low < ends[:, 0].min() and ends[:, 0].max() < high)
            assert inside == (status[container.get_label(), names[round(y)]] == "fail"), (container.get_label(), y)
            seen += 1
    assert seen == len(check_rows(audits)) > 60
    adp = check_rows(audits).set_index(["defense", "check"]).loc[("adp", "white box against SPSA")]
    assert adp[["value", "limit", "measured"]].tolist() == [-0.0434375, 0.01, "difference"]
    with pytest.raises(UserError, match="no audits with numbers"):
        checks(audits[audits["check"] == "logits and no softmax"])
    with pytest.raises(UserError, match="13 defenses are too many"):
        checks(pd.concat([audits[audits["defense"] == "adp"].assign(defense=str(i)) for i in range(13)]))


def test_corruptions_and_radii():
    frame = bench.load_corruptions(RESULTS / "corruptions-digits")
    ax = corruptions(frame)
    single = frame[(frame["defense"] == "adp") & ~frame["corruption"].isin(("clean", "mean"))]
    fifth = single[single["severity"].astype(str) == "5"]["accuracy"].mean()
    assert np.isclose(ax.lines[0].get_ydata()[5], 100 * fifth)
    radii = bench.load_smoothing(RESULTS / "smooth-digits-smoothing")
    assert np.allclose(certified(radii).lines[0].get_ydata(), 100 * radii["certified"])
    with pytest.raises(UserError, match="13 lines are too many for a picture; choose at most 12"):
        corruptions(pd.concat([frame[frame["defense"] == "adp"].assign(defense=str(i)) for i in range(13)]))


def test_claims_stand_at_claimed_and_measured():
    table = bench.claims_table(RESULTS / "mnist-defenses")
    frame = table[table["claimed_robust"].notna() & table["measured_robust"].notna()]
    shown = np.concatenate(points(claims(table)))
    wanted = 100 * frame[["claimed_robust", "measured_robust"]].to_numpy()
    assert np.allclose(sorted(map(tuple, shown)), sorted(map(tuple, wanted)))
    with pytest.raises(UserError, match="no claim has a measured row"):
        claims(table.head(0))


def test_grid_of_images():
    rng = np.random.default_rng(0)
    clean = rng.random((3, 1, 4, 4), np.float32)
    changed = np.clip(clean + np.float32(0.1), 0, 1)
    images = Images(clean, changed, np.array([0, 1, 2]), np.array([0, 2, -1]), np.array([1.0, 0.25, np.nan]),
                    np.arange(3), ("a", "b", "c"))  # fmt: skip
    ax = adversarial_grid(images, eps=0.2, count=2, class_names=("cat", "dog", "eel"))
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape == (3 * 6, 2 * 6)
    assert np.array_equal(sheet[1:5, 1:5], clean[0, 0])
    assert np.array_equal(sheet[7:11, 7:11], changed[1, 0])
    assert np.allclose(sheet[13:17, 1:5], (changed - clean)[0, 0] / 0.4 + 0.5)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat → cat\n100 %", "dog → eel\n25 %"]
    with pytest.raises(UserError, match="1 to 16 can be drawn"):
        adversarial_grid(images, count=17)


@pytest.mark.parametrize(("name", "label"), [("adp", "norm of the score"), ("ebm-mcmc", "energy")])
def test_trajectory_ends_at_the_purified_image(name, label):
    defense, image = load_model(name, steps=5), load_dataset("digits").x[0]
    path = purification_trajectory(defense, image.numpy(), seed=3)
    assert (path.states.shape, path.values.shape, path.label) == ((6, 1, 8, 8), (6,), label)
    assert np.array_equal(path.states[0], image)
    purified = purify(defense.purifier, image[None], Noise.of(3, 1))
    assert np.allclose(path.states[-1], purified[0].detach().clamp(0, 1), atol=1e-6)
    if label == "energy":
        energy = defense.purifier.gradient.energy(2 * purified - 1)
        assert np.isclose(path.values[-1], float(energy), rtol=1e-4)
    ax = trajectory(path)
    assert np.array_equal(ax.lines[0].get_ydata(), path.values)
    assert [t.get_text() for t in ax.get_xticklabels()] == list("012345")
    with pytest.raises(UserError, match="SmallCNN has no purifier"):
        purification_trajectory(load_model("undefended").network, image)
    with pytest.raises(UserError, match=r"the image is \[3, 32, 32\]; this defense takes \[1, 8, 8\]"):
        purification_trajectory(defense, np.zeros((3, 32, 32)))
    with pytest.raises(UserError, match=r"the image is \[1, 1, 8, 8\]; it must be one image"):
        purification_trajectory(defense, image[None])


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_the_same_bytes_each_time(leaders, form, tmp_path):
    first, second = (file_bytes(ranks(leaders).get_figure(), form) for _ in range(2))
    assert first == second
    assert save(ranks(leaders).get_figure(), tmp_path / f"a.{form}").read_bytes() == first
    with pytest.raises(UserError, match=r"end its name in \.svg, \.pdf or \.png"):
        save(ranks(leaders).get_figure(), tmp_path / "a.jpg")


def test_svg_is_sound_whatever_the_names_are(leaders):
    frame = leaders.assign(defense=[HOSTILE, "x" * 200, "../../a", "二"])
    svg = file_bytes(ranks(frame).get_figure(), "svg")
    root = ET.fromstring(svg)
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not kinds & {"script", "a", "foreignObject", "metadata"}
    drawn = [t.text for t in root.iter() if t.tag.endswith("}text")]
    assert any(text and text.startswith("<script>alert('x')<") for text in drawn)
    assert b"prefers-color-scheme: dark" in svg
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith(("#", "data:")) for link in links)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast of two colours, in [1, 21]."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(x)] for x in (one, other)]
    light, dark = sorted((float(np.dot([0.2126, 0.7152, 0.0722], x)) for x in linear), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_on_both_backgrounds():
    for colour in (*COLOURS, INK, MUTED):
        assert contrast(colour, PAPER) >= 3, colour
        assert contrast(_DARK.get(colour, colour), _DARK[PAPER]) >= 3, colour


def test_axes_and_style_of_ones_own(leaders):
    figure = Figure()
    ax = figure.add_subplot()
    assert ranks(leaders, ax=ax) is ax
    with style():
        import matplotlib as mpl

        assert mpl.rcParams["svg.fonttype"] == "none"
    assert mpl.rcParams["svg.fonttype"] != "none"


def test_contraction_shows_rates_worst_cases_and_where_they_disagree():
    rates = pd.DataFrame({"defense": ["a", "b", "c"], "contraction": [0.2, 0.5, 1.0], "robust": [0.3, 0.2, 0.4]})
    _, rows = bench.contraction_agreement(rates.assign(robust_low=rates["robust"] - 0.1, robust_high=0.5))
    ax = contraction(rows)
    agrees, differs = points(ax)
    assert agrees.tolist() == [[0.2, 30.0], [0.5, 20.0]]
    assert differs.tolist() == [[1.0, 40.0]]
    assert {t.get_text() for t in ax.texts} == {"a", "b", "c"}
    assert len(points(contraction(rows[["defense", "contraction", "robust", "says"]]))) == 2  # without intervals
    with pytest.raises(UserError, match="no column contraction, robust, says"):
        contraction(rates[["defense"]])
    with pytest.raises(UserError, match="no rows"):
        contraction(rows[:0])


def test_margins_are_counted_in_bins_that_end_at_0():
    records = bench.load_results(RESULTS / "digits-linf")
    records = records[records["defense"] == "adp"]
    worst = bench.worst_per_image(records)
    bins = margin_bins(records, worst)
    clean = records[records["attack"] == "none"].set_index("image")["margin"]
    margin = records.set_index(["image", "attack", "view"])["margin"]
    attacked = np.array([margin[row.image, row.attack, row.view] for row in worst.itertuples()])
    assert 0 in set(bins["from"])
    assert np.allclose(np.diff(bins["from"]), bins["to"].iloc[0] - bins["from"].iloc[0])
    assert (bins["to"].to_numpy()[:-1] == bins["from"].to_numpy()[1:]).all()
    for name, values in (("clean", clean.to_numpy()), ("worst", attacked)):
        assert bins[name].sum() == pytest.approx(1)
        assert bins.loc[bins["from"] < 0, name].sum() == pytest.approx((values < 0).mean())
    drawn = {tuple(100 * bins["clean"]), tuple(100 * bins["worst"])}
    stairs = [patch for patch in margins(bins).patches if hasattr(patch, "get_data")]
    assert {tuple(patch.get_data().values) for patch in stairs} == drawn


def test_margins_of_equal_images_and_of_none():
    frame = pd.DataFrame({"training_seed": 0, "attack": ["none", "a"], "view": "v", "image": 0, "margin": [2.0, 2.0]})
    worst = pd.DataFrame(
        {"training_seed": [0], "image": 0, "attack": "a", "view": "v", "defense": "d", "norm": "Linf", "eps": "1/5",
         "targets": "none"}
    )  # fmt: skip
    bins = margin_bins(frame, worst)
    assert bins[["clean", "worst"]].to_numpy().tolist() == [[1.0, 1.0]]
    assert bins["from"][0] <= 2 <= bins["to"][0]
    none = margin_bins(frame.assign(margin=np.nan), worst)
    assert none.empty
    with pytest.raises(UserError, match="no image has the margins"):
        margins(none)
    with pytest.raises(UserError, match="several defenses or threats"):
        margin_bins(frame, pd.concat([worst, worst.assign(eps="1/3")]))


def test_the_radius_has_a_line_at_chance(audits):
    chance = audits.set_index("check").loc["chance at Linf 1/2", "numbers"].iloc[0]["limit"]
    lines = [line.get_ydata() for line in radius(audits).lines if line.get_linestyle() == ":"]
    assert [list(line) for line in lines] == [[100 * chance] * 2]
    assert not [
        line for line in radius(audits[audits["check"] != "chance at Linf 1/2"]).lines if line.get_linestyle() == ":"
    ]
