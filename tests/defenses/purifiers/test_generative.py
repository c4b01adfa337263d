"""Generative purifiers against closed forms: linear generators, linear classifiers, quadratics."""

import pytest
import torch
from torch import nn

from bench.evaluation.meter import Meter
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Noise
from defenses.core.purify import purify, unrolled
from defenses.core.replay import replayed
from defenses.networks.registry import build_network
from defenses.purifiers.autoencoder import Reformer
from defenses.purifiers.defense_gan import DefenseGAN
from defenses.purifiers.igebm import ClippedLangevin
from defenses.purifiers.jem import JointEnergy, Refinement
from defenses.utils.errors import UserError

SHAPE = (1, 4, 4)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = (0.5 + 0.1 * values(3, *SHAPE, seed=1)).clamp(0, 1)


class Linear(nn.Module):
    """G(z) = A z, in [-1, 1] scale about 0: images (A z + 1) / 2."""

    latent = 3

    def __init__(self):
        super().__init__()
        self.matrix = torch.linalg.qr(values(16, 3, seed=2))[0]

    def forward(self, z):
        return (z @ self.matrix.T).view(-1, *SHAPE)


# mean((A z + 1)/2 - x)^2 over 16 pixels has slope (A^T A z - A^T (2x - 1)) / 32 with A^T A = 1.
RATE = 1 / 32


def linear_gan(**options):
    return DefenseGAN(Linear(), **{"restarts": 2, "steps": 5, "lr": 8.0, "momentum": 0.0, "variance": 0.5, **options})


def test_latent_search_on_a_linear_generator_is_a_geometric_series():
    p, noise = linear_gan(), Noise.of(0, 3)
    z0 = p.start(X, tuple(noise.child(0, 0).draw(d).double() for d in p.noise(SHAPE).start))[0]["z"]
    target = (2 * X - 1).flatten(1) @ p.images.generator.matrix
    left = (1 - 8 * RATE) ** 4 * (1 - 0.8 * RATE)  # four steps, and one at a tenth of the rate
    z = target[:, None] + left * (z0 - target[:, None])
    images = (z @ p.images.generator.matrix.T + 1) / 2
    errors = (images - X.flatten(1)[:, None]).square().mean(2)
    expected = images[torch.arange(3), errors.argmin(1)].view_as(X)
    torch.testing.assert_close(purify(p, X, noise), expected)
    assert len(set(errors.argmin(1).tolist())) == 2, "both restarts win somewhere"


def test_a_long_search_projects_on_the_generator_and_so_does_its_gradient():
    p = linear_gan(steps=400, momentum=0.7)
    a = p.images.generator.matrix
    x = X.clone().requires_grad_()
    out = unrolled(p, x, Noise.of(0, 3))
    torch.testing.assert_close(2 * out - 1, ((2 * X - 1).flatten(1) @ a @ a.T).view_as(X))
    v = values(*X.shape, seed=3)
    (grad,) = torch.autograd.grad(out, x, v)
    torch.testing.assert_close(grad, (v.flatten(1) @ a @ a.T).view_as(X))


def test_search_is_differentiated_exactly_also_by_replay():
    generator = build_network("dcgan-generator", in_channels=1, size=8, latent=3, width=4).double().eval()
    p = DefenseGAN(generator, restarts=2, steps=4, lr=2.0, variance=1.0)
    p = p.smoothed(0.5)  # central differences would cross kinks
    x = (0.5 + 0.1 * values(2, 1, 8, 8)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: unrolled(p, a, Noise.of(0, 2)), (x,), eps=1e-6, atol=1e-6)
    pulled = [torch.autograd.grad(f(p, x, Noise.of(0, 2)).square().sum(), x)[0] for f in (unrolled, replayed)]
    torch.testing.assert_close(pulled[0], pulled[1], atol=1e-12, rtol=1e-10)
    assert float(pulled[0].abs().max()) > 1e-4


def before_a_classifier(p, **options):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().requires_grad_(False)
    return Purified(p, Classifier(network, num_classes=3, input_shape=SHAPE), **options)


def test_evaluations_are_counted_as_documented():
    meter = Meter(linear_gan().cost_modules())
    for p, forwards, backwards in (
        (linear_gan(restarts=3, steps=7), 3 * 7 + 3, 3 * 7),
        (Reformer(nn.Identity()), 1, 0),
        (ClippedLangevin(Quadratic(1.0, 0.0), steps=6), 6, 6),
        (Refinement(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double(), steps=5), 5, 5),
    ):
        meter = Meter(p.cost_modules())
        purify(p, X, Noise.of(0, 3))
        assert (meter.forwards, meter.backwards) == (3 * forwards, 3 * backwards)


def test_a_latent_search_has_no_forward_noise_mode_and_an_autoencoder_has():
    assert before_a_classifier(linear_gan()).gradients == ("exact", "bpda", "blind", "surrogate")
    defense = before_a_classifier(Reformer(nn.Sigmoid()))
    assert defense.gradients == ("exact", "bpda", "blind", "forward-noise")
    assert not defense.stochastic
    grads = []
    for mode in ("bpda", "forward-noise"):
        x = X.clone().requires_grad_()
        grads.append(torch.autograd.grad(defense.logits(x, Noise.of(0, 3), gradient=mode)[:, 0].sum(), x)[0])
    torch.testing.assert_close(grads[0], grads[1])


def test_the_gradient_of_a_joint_energy():
    layer = nn.Linear(16, 3).double()
    network = nn.Sequential(nn.Flatten(), layer)
    u = (2 * X - 1).requires_grad_()
    (grad,) = torch.autograd.grad(JointEnergy(network)(u).sum(), u)
    weights = network((u + 1) / 2).softmax(1) @ layer.weight
    torch.testing.assert_close(grad, -weights.view_as(u) / 2)


def test_refinement_is_noise_and_langevin_steps():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().requires_grad_(False)
    p, noise = Refinement(network, steps=2, rate=0.5, eps=0.02, sigma=0.1), Noise.of(0, 3)
    z = noise.child(0, 0).draw(p.noise(SHAPE).start[0]).double()
    steps = noise.child(1, 0).draw(p.noise(SHAPE).step[0], range(2)).double()
    u, energy = 2 * X - 1 + 0.1 * z, JointEnergy(network)
    for k in range(2):
        at = u.detach().requires_grad_()
        u = u - 0.5 * torch.autograd.grad(energy(at).sum(), at)[0] + 0.02 * steps[k]
    torch.testing.assert_close(purify(p, X, noise), (u + 1) / 2)
    assert not Refinement(network, sigma=0).noise(SHAPE).start


class Quadratic(nn.Module):
    """f = a/2 |x - m|^2."""

    def __init__(self, a, m):
        super().__init__()
        self.a, self.m = a, m

    def forward(self, x):
        return self.a / 2 * (x - self.m).square().flatten(1).sum(1)


def test_clipped_steps_on_a_quadratic():
    # Far from m every step goes clip * rate; near it a share of the distance; noise nowhere.
    p = ClippedLangevin(Quadratic(0.1, 0.4), steps=5, rate=2.0, clip=0.01, noise=0.0)
    assert not p.noise(SHAPE).step
    x = torch.tensor([0.9, 0.45]).double().view(2, 1, 1, 1).expand(2, *SHAPE)
    out = purify(p, x, Noise.of(0, 2))
    near = 0.4 + 0.05 * (1 - 0.2) ** 5
    torch.testing.assert_close(out, torch.tensor([0.9 - 5 * 0.02, near]).double().view(2, 1, 1, 1).expand_as(out))
    out = purify(ClippedLangevin(Quadratic(1.0, -9.0), steps=50, rate=10.0, clip=0.01, noise=0.0), x, Noise.of(0, 2))
    assert float(out.abs().max()) == 0


def test_clipped_pixels_pass_the_gradient_and_clamped_ones_do_not():
    p = ClippedLangevin(Quadratic(0.1, 0.4), steps=1, rate=2.0, clip=0.01, noise=0.0)
    x = torch.tensor([[0.9, 0.45, 0.0]]).double().view(1, 1, 1, 3).requires_grad_()
    (grad,) = torch.autograd.grad(purify(p, x, Noise.of(0, 1)).sum(), x)
    torch.testing.assert_close(grad.flatten(), torch.tensor([1, 0.8, 1]).double())
    p = ClippedLangevin(Quadratic(0.1, 9.0), steps=1, rate=50.0, clip=0.01, noise=0.0)
    (grad,) = torch.autograd.grad(purify(p, x, Noise.of(0, 1)).sum(), x)
    assert grad.flatten().tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_gan(restarts=0),
        lambda: linear_gan(lr=0),
        lambda: linear_gan(momentum=1),
        lambda: ClippedLangevin(Quadratic(1, 0), clip=0),
        lambda: Refinement(nn.Identity(), rate=0),
        lambda: Refinement(nn.Identity(), sigma=-1),
        lambda: build_network("dcgan-generator", size=30),
    ],
)
def test_bad_parameters_are_one_line(make):
    with pytest.raises(UserError) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [8, 28, 32])
def test_networks_fit_their_images(size):
    x = torch.rand(2, 1, size, size)
    generator = build_network("dcgan-generator", in_channels=1, size=size, latent=5, width=4)
    images = generator(torch.zeros(2, 5))
    assert images.shape == x.shape
    assert build_network("dcgan-discriminator", in_channels=1, size=size, width=4)(images).shape == (2,)
    for kind, args in (("vae", {"size": size, "latent": 5, "width": 4}), ("autoencoder", {"depth": 4, "pool": True})):
        out = build_network(kind, in_channels=1, **args)(x).detach()
        assert out.shape == x.shape
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert build_network("igebm-resnet", in_channels=1, width=4)(x).shape == (2,)


def test_spectral_norm_bounds_the_slope():
    energy = build_network("igebm-mlp", hidden=32, depth=2).train()
    x = torch.rand(20, 1, 8, 8)
    for _ in range(30):
        energy(x)
    layers = [m for m in energy.eval() if isinstance(m, nn.Linear)][:-1]
    assert all(float(torch.linalg.matrix_norm(m.weight, 2)) == pytest.approx(1, abs=0.05) for m in layers)
