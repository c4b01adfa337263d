"""Input filters against the libraries' own results and closed forms."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from models import classifier, seeded
from scipy.ndimage import median_filter

from bench.evaluation.certificates.measure import certify
from defenses import card, load_model
from defenses.core.chain import Chain
from defenses.core.defense import Purified
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify
from defenses.data.dataset import load_dataset
from defenses.filters.bit_depth import BitDepth
from defenses.filters.gaussian_noise import GaussianNoise
from defenses.filters.jpeg import Jpeg
from defenses.filters.median import Median
from defenses.filters.non_local_means import NonLocalMeans
from defenses.filters.random_resize_pad import RandomResizePad
from defenses.filters.total_variation import TotalVariation
from defenses.utils.errors import UserError

SMALLER = partial(RandomResizePad, low=0.75)


class Blend(Purifier):
    """Several steps of x <- x + tanh(x^2) / 5."""

    steps = 4

    def start(self, x, z):
        return {"x": x}, {}

    def step(self, state, ctx, k, z):
        return {"x": state["x"] + state["x"].square().tanh() / 5}

    def finish(self, state, ctx):
        return state["x"]


FILTERS = [BitDepth, Median, Jpeg, TotalVariation, NonLocalMeans, SMALLER, GaussianNoise]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
NAMES = [
    "bit-depth",
    "median",
    "jpeg",
    "total-variation",
    "non-local-means",
    "random-resize-pad",
    "gaussian-noise",
]


def pictures(rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    return seeded(rows, *shape).sigmoid()


def run(part, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return purify(part, x, Noise.of(seed, len(x)))


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_rows_and_noise(kind, shape):
    x, part = pictures(3, shape), kind()
    before = x.clone()
    whole = run(part, x)
    assert whole.shape == x.shape
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(whole, run(part, x))
    alone = purify(part, x[1:2], Noise.of(0, 3).rows(slice(1, 2)))
    torch.testing.assert_close(alone, whole[1:2])
    assert torch.equal(whole, run(part, x, 1)) == (not part.draws(shape))
    assert run(part, x[:0]).shape == (0, *shape)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_has_so_many_values(bits):
    out = run(BitDepth(bits=bits), torch.linspace(0, 1, 2048).view(2, 1, 32, 32))
    expected = np.rint(np.linspace(0, 1, 2048, dtype=np.float32) * (2**bits - 1)) / (2**bits - 1)
    np.testing.assert_allclose(out.flatten().numpy(), expected, atol=1e-7)
    assert len(out.unique()) == 2**bits


@pytest.mark.parametrize("window", [2, 3])
def test_median_is_scipys(window):
    x = pictures(2, (3, 9, 11))
    expected = median_filter(x.numpy(), size=(1, 1, window, window), mode="reflect")
    assert np.array_equal(run(Median(window=window), x).numpy(), expected)


def test_exact_gradients_of_the_median_are_exact_but_where_grey_levels_tie_as_its_card_says():
    defense, x = load_model("median", "digits"), load_dataset("digits").x[:4]
    assert certify(defense, x).passed, "beside the ties"
    untied = 0.99 * x + 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    part, errors = Median(), []
    for at in (untied.double().requires_grad_(), x.double().requires_grad_()):
        slope = (torch.autograd.grad(run(part, at).square().sum(), at)[0] * along).sum()
        up, down = (run(part, at.detach() + h * along).square().sum() for h in (1e-7, -1e-7))
        errors.append(float(((up - down) / 2e-7 - slope).abs() / slope.abs()))
    assert errors[0] < 1e-6 < 0.01 < errors[1]
    assert "grey levels tie" in card("median").summary


def test_jpeg_is_pillows_and_loses_with_quality():
    x = pictures(1, (3, 32, 32))
    errors = [float((run(Jpeg(quality=q), x) - x).square().mean()) for q in (10, 75, 100)]
    assert errors == sorted(errors, reverse=True)
    flat = torch.full((1, 1, 8, 8), 100 / 255)
    assert torch.equal(run(Jpeg(quality=75), flat), flat)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_differentiable_jpeg_is_near_the_real_one(shape):
    x = torch.nn.functional.interpolate(pictures(2, (shape[0], 4, 4)), shape[1:], mode="bicubic").clamp(0, 1)
    part = Jpeg(quality=75)
    assert float((part.backward_network()(x) - run(part, x)).abs().mean()) < 0.02


def objective(u: np.ndarray, x: np.ndarray, mask: np.ndarray, lam: float) -> float:
    down, right = np.diff(u, axis=0, append=u[-1:]), np.diff(u, axis=1, append=u[:, -1:])
    return float(np.sqrt(down**2 + right**2).sum() + (mask * (u - x) ** 2).sum() / lam)


def test_total_variation_lowers_the_masked_objective_with_every_round():
    x = pictures(1, (1, 12, 12))
    values = []
    for rounds in (1, 3, 10, 30):
        part = TotalVariation(keep=0.7, lam=0.3, rounds=rounds)
        (draw,) = part.draws((1, 12, 12))
        mask = (seeded(1, *draw.shape).sigmoid() < 0.6).float()
        out = part.filtered(x, (1 - mask,))
        values.append(objective(out[0, 0].double().numpy(), x[0, 0].double().numpy(), mask[0].numpy() > 0, 0.3))
    assert values[1] < 0.99 * values[0]
    assert all(b < a * 1.005 for a, b in itertools.pairwise(values)), "but for the solver's own tolerance"


def test_total_variation_ignores_dropped_pixels():
    x = torch.full((1, 1, 8, 8), 0.4)
    mask = torch.ones(1, 8, 8)
    x[0, 0, 3, 3], mask[0, 3, 3] = 1.0, 0
    out = TotalVariation(keep=0.5).filtered(x, (1 - mask,))
    torch.testing.assert_close(out, torch.full_like(x, 0.4), atol=1e-4, rtol=0)


def test_total_variation_of_a_step_has_its_closed_form():
    """In one dimension a step between n equal pixels on each side loses lam / (2 n) on each side."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4:] = 1
    out = TotalVariation(keep=1, lam=0.4).filtered(x, ())
    torch.testing.assert_close(out[0, 0, 4], torch.tensor([0.05] * 4 + [0.95] * 4), atol=5e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_averages_noise_away_and_keeps_flat_images(channels):
    flat = torch.full((1, channels, 16, 16), 0.5)
    torch.testing.assert_close(run(NonLocalMeans(), flat), flat)
    noisy = flat + 0.05 * seeded(1, channels, 16, 16)
    assert float((run(NonLocalMeans(strength=30), noisy) - flat).std()) < 0.6 * float((noisy - flat).std())


def test_random_resize_pad_places_smaller_images_evenly():
    x = torch.ones(4000, 1, 8, 8)
    out = run(RandomResizePad(low=0.75), x)
    area = out.flatten(1).sum(1)
    sizes, counts = area.round().unique(return_counts=True)
    assert sizes.tolist() == [36, 49, 64]
    assert counts.min() > 1200
    small = out[area.round() == 36, 0]
    corners = small[:, 0, 0], small[:, 0, 7], small[:, 7, 0], small[:, 7, 7]
    assert all(float(c.mean()) == pytest.approx(1 / 9, abs=0.03) for c in corners), "nine places, as likely each"
    assert torch.equal(run(RandomResizePad(low=1), x[:3]), x[:3])


def test_gaussian_noise_has_its_moments_and_is_not_clamped():
    out = run(GaussianNoise(sigma=0.5), torch.ones(2000, 1, 4, 4))
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert float(out.std()) == pytest.approx(0.5, rel=0.02)
    assert float(out.max()) > 2
    assert torch.equal(run(GaussianNoise(sigma=0), out), out)


@pytest.mark.parametrize("part", [Median(window=3), RandomResizePad(low=0.6), GaussianNoise()])
def test_gradients_are_exact(part):
    x, noise = pictures(3, (2, 9, 9)).double(), Noise.of(0, 3)
    assert torch.autograd.gradcheck(lambda v: purify(part, v, noise), x.requires_grad_())


def test_a_rounding_filter_leaves_the_gradient_of_what_follows():
    """Backward the filter is the identity: the gradient is that of the rest at the rounded image."""
    rounded, rest, net = BitDepth(bits=3), Blend(), classifier()
    x, noise = pictures(2, (1, 8, 8)), Noise.of(0, 2)
    both = Purified(Chain([rounded, rest]), net)
    assert both.gradients == ("bpda", "blind", "bpda-filters")
    leaf, at = x.clone().requires_grad_(), run(rounded, x).requires_grad_()
    logits = both.logits(leaf, noise, gradient="bpda-filters")
    expected = Purified(rest, net).logits(at, noise)
    assert torch.equal(logits, both.logits(x, noise))
    torch.testing.assert_close(logits, expected)
    (grad,) = torch.autograd.grad(logits.square().sum(), leaf)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), at)[0])


def test_no_such_mode_where_all_or_none_can_be_differentiated():
    for parts in ([BitDepth(), Jpeg()], [GaussianNoise(), Median()]):
        assert "bpda-filters" not in Purified(Chain(parts), classifier()).gradients


def test_solid_filters_have_no_exact_gradient_but_values():
    defense = Purified(Chain([BitDepth(bits=3), GaussianNoise()]), classifier())
    x = pictures(2, (1, 8, 8))
    assert "exact" not in defense.gradients
    assert defense.logits(x, Noise.of(0, 2)).isfinite().all()
    with pytest.raises(UserError, match='no gradient mode "exact"; it has: bpda'):
        defense.logits(x.requires_grad_(), Noise.of(0, 2))


@pytest.mark.parametrize("name", NAMES)
def test_in_front_of_a_purifier_and_of_a_classifier(name):
    x = pictures(2, (1, 8, 8))
    for inner in ({"model_name": "pgd-at"}, {"model_name": "adp", "runs": 2, "steps": 2}):
        defense = load_model(dataset="digits", filters=[name], **inner)
        assert defense.logits(x, Noise.of(0, 2)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("bit-depth", {"bits": 0}, "bits is 0; it must be a whole number from 1 to 8"),
        ("median", {"window": 2.5}, "window is 5/2"),
        ("jpeg", {"quality": 101}, "quality is 101"),
        ("total-variation", {"keep": 0}, "keep is 0; it must be a number from 0.01 to 1"),
        ("non-local-means", {"search": 12}, "search is 12; a window has a middle"),
        ("random-resize-pad", {"low": 2}, "low is 2"),
        ("gaussian-noise", {"sigma": -1}, "sigma is -1"),
        ("gaussian-noise", {"sigma": "much"}, 'sigma is "much"'),
    ],
)
def test_bad_parameters_are_one_clear_line(name, params, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(name, "digits", **params)
    assert "\n" not in str(caught.value)


def test_jpeg_says_which_images_it_takes():
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        run(Jpeg(), torch.zeros(1, 2, 8, 8))


def test_published_parameters_are_the_defaults():
    assert card("bit-depth").merged("cifar10", {})["bits"] == "5"
    assert card("bit-depth").merged("mnist", {})["bits"] == "1"
    assert card("total-variation").merged("cifar10", {}) | {"keep": "1/2", "lam": "3/100"} == card(
        "total-variation"
    ).merged("cifar10", {})
