"""Diffusion purifiers against closed forms: Gaussian data, whose score, posterior and flow are known exactly."""

import math

import pytest
import torch
from gaussian_diffusion import MU, Exact, S, law

from defenses.core.noise import Noise
from defenses.core.purify import purify, unrolled
from defenses.core.replay import replayed
from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network
from defenses.networks.sde import START, VE, VP, sde_of, time
from defenses.purifiers.diffusion.samplers import Ancestral, DenoiseOnce, FlowODE, PredictorCorrector, ReverseSDE
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network

SHAPE = (1, 4, 4)
ALL = [ReverseSDE, PredictorCorrector, FlowODE, Ancestral, DenoiseOnce]
SDES = ["ve", "vp", "subvp"]


def images(n=6, dtype=torch.float32):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def small(sde="vp"):
    network = build_network("noise-mlp", size=4, hidden=32, depth=2, sde=sde)
    return network.requires_grad_(False)


@pytest.mark.parametrize("name", SDES)
def test_marginals_solve_the_equations_of_the_sde(name):
    """m' = a m and (std^2)' = 2 a std^2 + g^2."""
    sde = sde_of(name)
    t, h = torch.linspace(0.02, 0.98, 25, dtype=torch.float64), 1e-6
    mean = (sde.mean(t + h) - sde.mean(t - h)) / (2 * h)
    variance = (sde.std(t + h) ** 2 - sde.std(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(mean, sde.rate(t) * sde.mean(t), rtol=1e-6, atol=1e-8)
    expected = 2 * sde.rate(t) * sde.std(t) ** 2 + sde.diffusion(t) ** 2
    torch.testing.assert_close(variance, expected, rtol=1e-6, atol=1e-8)


def test_published_figures():
    sde = VP()
    spread = [float(sde.std(time(t)) / (2 * sde.mean(time(t)))) for t in (0.075, 0.1, 0.145)]
    assert spread == pytest.approx([0.128, 0.170, 0.25], abs=2e-3)  # noise in pixels of [0, 1], as ADP counts it
    assert float(sde.std(time(1e-5))) == pytest.approx(1e-3, rel=1e-2)
    assert float(VE().std(time(1.0))) == pytest.approx(50)
    assert float(sde_of("subvp").std(time(0.3))) == pytest.approx(float(sde.std(time(0.3))) ** 2)


@pytest.mark.parametrize("name", SDES)
def test_scales_of_images(name):
    sde, x = sde_of(name), images()
    torch.testing.assert_close(sde.decode(sde.encode(x)), x)
    assert float(sde.encode(torch.zeros(1))) == (0 if name == "ve" else -1)


def posterior(sde, u, t):
    """Return (mean, standard deviation) of x_0 given x_t = u."""
    m, std = float(sde.mean(time(t))), float(sde.std(time(t)))
    variance = m**2 * S**2 + std**2
    return MU + m * S**2 / variance * (u - m * MU), S * std / math.sqrt(variance)


@pytest.mark.parametrize(("name", "t_star"), [("vp", 0.3), ("subvp", 0.4), ("ve", 0.4)])
@pytest.mark.parametrize("kind", [ReverseSDE, Ancestral])
def test_reverse_sde_samples_the_posterior(kind, name, t_star):
    options = {"guidance": 0, "clip": False, "rounds": 1} if kind is Ancestral else {}
    p = kind(Exact(name), t_star=t_star, steps=300, **options)
    n, u = 4000, 0.7
    state = {"u": torch.full((n, 1, 1, 4), u)}
    noise = Noise.of(0, n)
    for k in range(p.steps):
        z = tuple(noise.child(k, i).draw(d) for i, d in enumerate(p.noise((1, 1, 4)).step))
        state = p.step(state, {}, k, z)
    mean, spread = posterior(p.sde, u, t_star)
    assert float(state["u"].mean()) == pytest.approx(mean, abs=0.01)
    assert float(state["u"].std()) == pytest.approx(spread, rel=0.03)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("kind", ALL[:4])
def test_data_stay_data(kind, name):
    """Noise and back leaves the law of the data as it is; the corrector widens variances by up to snr^2 + 4 / D."""
    options = {"guidance": 0, "clip": False, "rounds": 2} if kind is Ancestral else {}
    p = kind(Exact(name), t_star=0.4, steps=150, **options)
    n = 200
    x = p.sde.decode(MU + S * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(3)))
    u = p.sde.encode(purify(p, x, Noise.of(1, n)))
    assert float(u.mean()) == pytest.approx(MU, abs=0.02)
    widened = math.sqrt(1 + 0.16**2 + 4 / 64) if kind is PredictorCorrector else 1
    assert 0.98 * S < float(u.std()) < 1.02 * S * widened


@pytest.mark.parametrize("name", SDES)
def test_flow_is_the_closed_map(name):
    p = FlowODE(Exact(name), t_star=0.4, steps=200).double()
    x, noise = images(dtype=torch.float64), Noise.of(0, 6)
    z = noise.child(0, 0).draw(p.noise(SHAPE).start[0]).double()
    (far, wide), (near, narrow) = law(p.sde, 0.4), law(p.sde, START)
    noisy = float(p.sde.mean(time(0.4))) * p.sde.encode(x) + float(p.sde.std(time(0.4))) * z
    expected = p.sde.decode(near + narrow / wide * (noisy - far))
    torch.testing.assert_close(purify(p, x, noise), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [5, 10, 40])
@pytest.mark.parametrize("name", SDES)
def test_flow_is_accurate_where_pixels_hardly_vary(name, steps):
    """The flow is as stiff as 1/t; errors are in units of data in [-1, 1]."""
    for s, most in ((1e-6, 1e-6), (0.05, 0.1 / steps**1.5)):
        p = FlowODE(Exact(name, s=s), t_star=0.1, steps=steps).double()
        x, noise = p.sde.decode(MU + s * (2 * images(dtype=torch.float64) - 1)), Noise.of(0, 6)
        z = noise.child(0, 0).draw(p.noise(SHAPE).start[0]).double()
        noisy = p.start(x, (z,))[0]["u"]
        (far, wide), (near, narrow) = law(p.sde, 0.1, s=s), law(p.sde, START, s=s)
        error = p.sde.encode(purify(p, x, noise)) - (near + narrow / wide * (noisy - far))
        assert float(error.square().mean().sqrt()) < most, s


def test_shipped_flow_is_near_the_fine_one():

    network, x = load_network("score-sde", "digits").double(), load_dataset("digits", "validation").x[:20].double()
    fine, coarse = (purify(FlowODE(network, t_star=0.1, steps=n), x, Noise.of(0, 20)) for n in (400, 10))
    assert float((fine - coarse).square().mean().sqrt()) < 1e-3


def test_every_corrector_leads_away_from_the_image():
    """For normal data: cov(x, out) is that of the reverse SDE by (1 - 2 snr^2) a corrector."""
    n = 2000
    x = MU + S * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    plain, corrected = (kind(Exact(), t_star=0.1, steps=11) for kind in (ReverseSDE, PredictorCorrector))
    out = [p.sde.encode(purify(p, p.sde.decode(x), Noise.of(1, n))) - MU for p in (plain, corrected)]
    before, after = (float(((x - MU) * o).mean()) for o in out)
    assert after / before == pytest.approx((1 - 2 * 0.16**2) ** 10, rel=0.1)


def test_one_shot_is_the_posterior_mean():
    p = DenoiseOnce(Exact(), t_star=0.2).double()
    u = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(p.denoised(u, 0.2), posterior(p.sde, u, 0.2)[0])
    torch.testing.assert_close(
        p.move(u, {}, 0.2, START, ()), ReverseSDE(Exact(), t_star=0.2).one_step()({"u": u}, {})["u"]
    )


def test_ancestral_step_is_ddpms():
    """With beta and alpha-bar of one step of the grid: mean and variance of Ho et al. 2020, equation 7."""
    p = Ancestral(small(), t_star=0.05, steps=5, rounds=1, guidance=0, clip=False).double()
    u = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t, s = p.times[1], p.times[2]
    bar, before = (float(p.sde.mean(time(a))) ** 2 for a in (t, s))
    alpha, beta = bar / before, 1 - bar / before
    clean = p.denoised(u, t)
    mean = math.sqrt(before) * beta / (1 - bar) * clean + math.sqrt(alpha) * (1 - before) / (1 - bar) * u
    torch.testing.assert_close(p.move(u, {}, t, s, (z,)), mean + math.sqrt(beta) * z)


def test_guidance_pulls_towards_the_noisy_image():
    plain = Ancestral(small(), guidance=0, rounds=1)
    guided = Ancestral(small(), guidance=5.0, rounds=1)
    u, image, z = images(), images().flip(0) * 2 - 1, torch.randn(2, 6, *SHAPE)
    t, s = guided.times[:2]
    sde = guided.sde
    m, std = sde.mean(time(t)), sde.std(time(t))
    variance = std**2 - (m / sde.mean(time(s))) ** 2 * sde.std(time(s)) ** 2
    moved = guided.move(u, {"image": image}, t, s, tuple(z)) - plain.move(u, {}, t, s, (z[0],))
    torch.testing.assert_close(moved, variance * 5.0 * std / m * (m * image + std * z[1] - u), rtol=1e-3, atol=1e-6)
    _, ctx = guided.start(images(), (z[0],))
    torch.testing.assert_close(ctx["image"], 2 * images() - 1)
    assert guided.paths == ("network", "pull")
    assert plain.paths == ("network",)


def test_predictions_are_clamped_as_in_ddpm():
    p = Ancestral(Exact(mu=5.0), rounds=1, guidance=0)
    assert float(purify(p, images(), Noise.of(0, 6)).max()) == 1.0
    assert float(purify(Ancestral(Exact(mu=5.0), guidance=0, clip=False), images(), Noise.of(0, 6)).max()) > 1.0


def test_corrector_counts_every_image_by_itself():
    p = PredictorCorrector(small(), t_star=0.1, steps=4, snr=0.16)
    score, z = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
    expected = 2 * (1 - float(VP().beta(time(0.1))) / 1000) * (0.16 * ratio) ** 2
    torch.testing.assert_close(p.step_size(score, z, 0.1).flatten(), expected)


@pytest.mark.parametrize("kind", ALL)
def test_rows_are_their_own_and_noise_decides_everything(kind):
    p, x, noise = kind(small(), t_star=0.1), images(), Noise.of(0, 6)
    whole, some = purify(p, x, noise), torch.tensor([4, 1])
    torch.testing.assert_close(whole[some], purify(p, x[some], noise.rows(some)))
    assert torch.equal(whole, purify(p, x, noise))
    assert not torch.equal(whole, purify(p, x, Noise.of(1, 6)))


@pytest.mark.parametrize(
    ("kind", "options", "calls", "cheaper"),
    [
        (ReverseSDE, {"steps": 8}, 8, 2),
        (PredictorCorrector, {"steps": 8}, 15, 3),
        (FlowODE, {"steps": 8}, 15, 3),
        (Ancestral, {"steps": 8, "rounds": 3}, 24, 6),
        (DenoiseOnce, {}, 1, None),
    ],
)
def test_network_calls_are_as_documented(kind, options, calls, cheaper):
    p, made_calls = kind(small(), **options), []
    p.network.register_forward_hook(lambda *_: made_calls.append(1))
    purify(p, images(), Noise.of(0, 6))
    assert len(made_calls) == calls
    made_calls.clear()
    other = p.surrogate()
    assert (other is None) == (cheaper is None)
    if other is not None:
        purify(other, images(), Noise.of(0, 6))
        assert len(made_calls) == cheaper
        assert (other.times[0], other.times[-1]) == (p.times[0], p.times[-1])


def test_a_surrogate_takes_its_number_of_steps_in_all_rounds():
    p = Ancestral(small(), steps=8, rounds=3)
    assert (p.surrogate(6).steps, len(p.surrogate(6).times)) == (6, 3)
    assert p.surrogate(6).times[-1] == p.times[-1]
    for steps, message in ((24, "no cheaper"), (7, "multiple of 3")):
        with pytest.raises(UserError, match=message):
            p.surrogate(steps)


@pytest.mark.parametrize("kind", ALL)
def test_replayed_gradient_is_that_of_autograd_over_a_hundred_steps(kind):
    options = {} if kind is DenoiseOnce else {"steps": 100}
    p = kind(small(), t_star=0.1, **({**options, "rounds": 1} if kind is Ancestral else options))
    weight = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(5))
    gradients = []
    for how, more in ((unrolled, {}), (replayed, {"length": 10})):
        x = images().requires_grad_()
        gradients.append(torch.autograd.grad((how(p, x, Noise.of(0, 6), **more) * weight).sum(), x)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    assert float(gradients[0].abs().sum()) > 0


@pytest.mark.parametrize("kind", ALL)
def test_gradients_agree_with_central_differences(kind):
    options = {} if kind is DenoiseOnce else {"steps": 3}
    p = kind(small().double(), t_star=0.2, **options)
    x = (0.3 + 0.4 * images(2, torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: purify(p, a, Noise.of(0, 2)), (x,), eps=1e-6, atol=1e-5)


def test_shortened_makes_the_first_steps():
    p, noise, x = ReverseSDE(small(), steps=10), Noise.of(0, 6), images()
    short = p.shortened(3)
    assert (short.steps, short.times) == (3, p.times)
    state, ctx = p.start(x, (noise.child(0, 0).draw(p.noise(SHAPE).start[0]),))
    for k in range(3):
        state = p.step(state, ctx, k, (noise.child(1, 0).draw(p.noise(SHAPE).step[0], range(k, k + 1))[0],))
    torch.testing.assert_close(purify(short, x, noise), p.finish(state, ctx))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReverseSDE(torch.nn.Identity()), "knows its SDE"),
        (lambda: ReverseSDE(small(), t_star=0), "t_star"),
        (lambda: ReverseSDE(small(), t_star=1.5), "t_star"),
        (lambda: ReverseSDE(small(), steps=0), "steps"),
        (lambda: Ancestral(small(), rounds=0), "rounds"),
        (lambda: Ancestral(small(), guidance=-1), "guidance"),
        (lambda: PredictorCorrector(small(), snr=0), "snr"),
        (lambda: sde_of("vpp"), "did you mean vp"),
        (lambda: VE(1.0, 0.5), "sigma_min"),
        (lambda: VP(0.0, 0.5), "beta_min"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(UserError, match=message):
        make()
