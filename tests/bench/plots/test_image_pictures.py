"""Pictures of images: which attack breaks each, adversarial ones, purification."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

import bench
from bench.analysis.images import Images
from bench.evaluation.trajectory import purification_trajectory
from bench.plots import (
    adversarial_grid,
    matrix,
    trajectory,
)
from defenses import load_model
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"


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


def test_matrix_shows_shares_of_images_and_bins_many():
    worst = bench.worst_per_image(RESULTS / "digits-linf")
    values = right_shares(matrix(worst))
    assert values.shape == (4, 500)
    assert np.allclose(values.mean(1), sorted(worst.groupby("defense")["accuracy"].mean(), reverse=True))
    many = pd.concat([worst, worst.assign(image=worst["image"] + 1000), worst.assign(image=worst["image"] + 2000)])
    binned = right_shares(matrix(many))
    assert binned.shape == (4, 500)
    assert np.allclose(binned.mean(1), values.mean(1))


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
