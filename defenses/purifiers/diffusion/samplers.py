"""Purification by diffusion: noise up to a time t*, then back to an image, by one of five ways.

An image is taken to the SDE's data, x_t* = m(t*) x + std(t*) z, and led back over a fixed grid of times. The network
predicts the noise, so the score is s(u, t) = -network(u, t) / std(t).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.networks.sde import SDE, START, time
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy


def grid(t_star: float, end: float, steps: int) -> tuple[float, ...]:
    """The steps + 1 times from t_star down to `end`, equally far apart."""
    return (*(t_star + (end - t_star) * k / steps for k in range(steps)), end)


class Diffused(Purifier):
    """What the ways have in common: the noise, the grid, and the hooks of gradient modes.

    Args:
        network: noise predictor, (noisy data [B, C, H, W], times [B]) -> noise, with its SDE as attribute `sde`.
        t_star: time up to which noise is put in, above `end` and at most 1.
        steps: number of steps back.
        rounds: how many times the image is noised and led back.
    """

    paths: tuple[str, ...] = ("network",)
    end: float = START  # where the grid ends
    draws: int = 1  # of every step

    def __init__(self, network: nn.Module, *, t_star: float = 0.1, steps: int = 100, rounds: int = 1):
        super().__init__()
        if not isinstance(getattr(network, "sde", None), SDE):
            raise UserError("a diffusion purifier needs a noise predictor that knows its SDE, as noise-mlp does")
        check_numbers(t_star=t_star)
        check_whole(1, steps=steps, rounds=rounds)
        if not self.end < t_star <= 1:
            raise UserError(f"t_star is {t_star}; it must be above {self.end:g} and at most 1")
        self.network, self.t_star, self.steps, self.rounds = network, t_star, rounds * steps, rounds
        self.times = self.grid(steps)

    def grid(self, steps: int) -> tuple[float, ...]:
        """The steps + 1 times of a round. Default: equally far apart."""
        return grid(self.t_star, self.end, steps)

    @property
    def sde(self) -> SDE:
        """The SDE that the network was trained under."""
        return self.network.sde  # type: ignore[return-value]

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """One normal draw before the first step, and `draws` in every step; one more where there are more rounds."""
        return NoiseSpec(start=(Draw(shape),), step=(Draw(shape),) * (self.draws + (self.rounds > 1)))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """m(t*) x + std(t*) z, in the SDE's data."""
        return {"u": self._noised(self.sde.encode(x), z[0])}, {}

    def _noised(self, u: Tensor, z: Tensor) -> Tensor:
        t = time(self.t_star)
        return self.sde.mean(t) * u + self.sde.std(t) * z

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """From a time of the grid to the next; a round after the first begins with noise."""
        u, i = state["u"], k % (len(self.times) - 1)
        drawn = tuple(v.to(u.dtype) for v in z)
        if k and i == 0:
            u = self._noised(u, drawn[-1])
        return {"u": self.move(u, ctx, self.times[i], self.times[i + 1], drawn)}

    @abstractmethod
    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """From u [B, C, H, W] at time t to time s < t."""

    def finish(self, state: State, ctx: State) -> Tensor:  # noqa: ARG002
        """Back to [0, 1] scale, not clamped."""
        return self.sde.decode(state["u"])

    def predicted(self, u: Tensor, t: float) -> Tensor:
        """The noise in u at time t."""
        return self.network(u, u.new_full((len(u),), t))  # type: ignore[no-any-return]

    def score(self, u: Tensor, t: float) -> Tensor:
        """The score at u and time t."""
        return -self.predicted(u, t) / self.sde.std(time(t))

    def denoised(self, u: Tensor, t: float) -> Tensor:
        """E[x_0 | x_t = u] by Tweedie's formula."""
        at = time(t)
        return (u - self.sde.std(at) * self.predicted(u, t)) / self.sde.mean(at)

    def reversed(self, u: Tensor, t: float, s: float, z: Tensor) -> Tensor:
        """One step of Euler and Maruyama of the reverse SDE; the step to the end of the grid is without noise."""
        at, length = time(t), t - s
        g2 = self.sde.diffusion(at) ** 2
        moved = u - (self.sde.rate(at) * u - g2 * self.score(u, t)) * length
        return moved if s == self.end else moved + torch.sqrt(g2 * length) * z

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """A quarter of the steps, or `steps` in all rounds together, longer ones over the whole way (Lee & Kim 2023).

        Raises:
            UserError: no fewer steps than it has, or not as many in every round.
        """
        if len(self.times) < 3:
            return None
        if steps is not None and steps >= self.steps:
            raise UserError(f"a surrogate of {steps} steps is no cheaper than the purifier of {self.steps}; take fewer")
        if steps is not None and (steps < 1 or steps % self.rounds):
            raise UserError(
                f"a surrogate of {steps} steps does not share them among {self.rounds} rounds evenly; "
                f"take a multiple of {self.rounds}"
            )
        each = max(1, (len(self.times) - 1) // 4) if steps is None else steps // self.rounds
        return shared_copy(self, steps=self.rounds * each, times=self.grid(each))

    def one_step(self) -> Callable[[State, State], State]:
        """From t* to E[x_0 | x_t*] at once."""
        return lambda state, _: {"u": self.denoised(state["u"], self.t_star)}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """The score at time t*, of the image without noise."""
        scale = self.sde.mean(time(self.t_star))
        return lambda x: -self.predicted(scale * self.sde.encode(x), self.t_star)


class ReverseSDE(Diffused):
    """DiffPure (Nie et al. 2022, arXiv 2205.07460): Euler-Maruyama steps of the reverse SDE. One call a step."""

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        """One step of the reverse SDE."""
        return self.reversed(u, t, s, z[0])


class PredictorCorrector(Diffused):
    """Steps of the reverse SDE, each but the last followed by one of Langevin dynamics. 2n - 1 calls in n steps.

    Algorithm 1 of Song et al. 2021. The corrector's step is 2 alpha (snr |z| / |s|)^2 with the norms of every image by
    itself; the reference averages the norms over the batch, so that an image's result depends on its company. It does
    not get shorter where the grid is finer: many correctors walk away from the image to another of the same law. With
    normal data of one variance each leaves 1 - 2 snr^2 of the covariance with the image.

    Args:
        network: see `Diffused`.
        t_star: see `Diffused`.
        steps: see `Diffused`.
        snr: r, signal-to-noise ratio of the corrector.
    """

    paths = ("network", "step_size")
    draws = 2

    def __init__(self, network: nn.Module, *, t_star: float = 0.1, steps: int = 100, snr: float = 0.16):
        super().__init__(network, t_star=t_star, steps=steps)
        check_numbers(snr=snr)
        if snr <= 0:
            raise UserError(f"snr is {snr}; it must be positive")
        self.snr = snr

    def step_size(self, score: Tensor, z: Tensor, t: float) -> Tensor:
        """The corrector's step [B, 1, 1, 1]."""
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
        size: Tensor = 2 * self.sde.corrector(time(t)) * (self.snr * ratio) ** 2
        return size.view(-1, 1, 1, 1)

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        """Predict, then correct; after the last prediction there is nothing to correct."""
        u = self.reversed(u, t, s, z[0])
        if s == self.end:
            return u
        score = self.score(u, s)
        size = self.step_size(score, z[1], s)
        return u + size * score + torch.sqrt(2 * size) * z[1]


class FlowODE(Diffused):
    """The probability-flow ODE from the noisy image back, by Heun's method. 2n - 1 calls in n steps.

    With r = std / m it reads d(x / m) = (the noise in x) dr (Karras et al. 2022, arXiv 2206.00364), which is exact for
    pixels that do not vary in the data; dx/dt is as stiff as 1/t there. The last step is Euler's, so that no network is
    asked at the end of the grid. Times are even in their roots, as VP's std is for short ones.

    Noise is put in first: encoding and decoding by the ODE alone is invertible, and purifies nothing.
    """

    draws = 0

    def grid(self, steps: int) -> tuple[float, ...]:
        """Even in the roots of the times."""
        roots = grid(math.sqrt(self.t_star), math.sqrt(self.end), steps)
        return (self.t_star, *(root**2 for root in roots[1:-1]), self.end)

    def velocity(self, u: Tensor, t: float) -> Tensor:
        """dx/dt = a x - 1/2 g^2 s."""
        at = time(t)
        return self.sde.rate(at) * u - self.sde.diffusion(at) ** 2 / 2 * self.score(u, t)

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        """One step of Heun's method; see the class."""
        (m, std), (m_to, std_to) = ((self.sde.mean(at), self.sde.std(at)) for at in (time(t), time(s)))
        length = m_to * (std_to / m_to - std / m)
        first, u = self.predicted(u, t), m_to / m * u
        if s == self.end:
            return u + length * first
        return u + length / 2 * (first + self.predicted(u + length * first, s))


class Ancestral(Diffused):
    """DDPM's sampler (Ho et al. 2020), which may be guided towards the image (GDMP, Wang et al. 2022). One call a step.

    From t to s the law of x_s given x_t and x_0 is known; x_0 is replaced by its prediction, and the variance is the
    larger of DDPM's two, std_t^2 - (m_t / m_s)^2 std_s^2. The last step gives the predicted x_0 itself. Guidance moves
    the mean by variance * guidance * std_t / m_t * (x'_t - u), with x'_t the image under fresh noise of time t: down
    the squared distance. Gradients go to the image by that way too.

    The release takes the mean squared error over the whole batch, so that guidance gets weaker with the batch's size;
    its guide_scale of 60000 at batch 100 is a guidance of 18.7 here.

    Args:
        network: see `Diffused`.
        t_star: see `Diffused`; the release's 36 of 1000 steps are .036.
        steps: see `Diffused`.
        rounds: see `Diffused`; the release makes four.
        guidance: strength of the pull; 0 is DDPM alone.
        clip: clamp every predicted x_0 to the range of images, as DDPM does.
    """

    end = 0.0

    def __init__(
        self,
        network: nn.Module,
        *,
        t_star: float = 0.036,
        steps: int = 36,
        rounds: int = 4,
        guidance: float = 18.7,
        clip: bool = True,
    ):
        super().__init__(network, t_star=t_star, steps=steps, rounds=rounds)
        check_numbers(guidance=guidance)
        if guidance < 0:
            raise UserError(f"guidance is {guidance}; it must be at least 0")
        self.guidance, self.clip = guidance, clip
        self.draws = 2 if guidance else 1
        self.paths = ("network", "pull") if guidance else ("network",)

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """The noisy image; the image itself is context where it guides."""
        state, ctx = super().start(x, z)
        return state, {"image": self.sde.encode(x)} if self.guidance else ctx

    def pull(self, u: Tensor, image: Tensor, t: float, z: Tensor) -> Tensor:
        """Half the downward gradient of the squared distance between u and the image under noise of time t."""
        at = time(t)
        return self.sde.mean(at) * image + self.sde.std(at) * z - u

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """One step; see the class."""
        sde, at, to = self.sde, time(t), time(s)
        clean = self.denoised(u, t)
        if self.clip:
            clean = clean.clamp(-1 if sde.centred else 0, 1)
        if s == self.end:
            return clean
        ratio, variance_t, variance_s = sde.mean(at) / sde.mean(to), sde.std(at) ** 2, sde.std(to) ** 2
        between = variance_t - ratio**2 * variance_s
        mean = ratio * variance_s / variance_t * u + sde.mean(to) * between / variance_t * clean
        if self.guidance:
            pull = self.pull(u, ctx["image"], t, z[1])
            mean = mean + between * self.guidance * sde.std(at) / sde.mean(at) * pull
        return mean + torch.sqrt(between) * z[0]


class DenoiseOnce(Diffused):
    """E[x_0 | x_t*] in one call: the denoiser of diffusion-denoised smoothing (Carlini et al. 2023, 2206.10550).

    m(t*) x + std(t*) z is m(t*) times the image under Gaussian noise: with a classifier behind it, this is a smoothed
    classifier, and no other noise is to stand before it.

    Args:
        network: see `Diffused`.
        t_star: see `Diffused`.
        sigma: that noise, in pixels of [0, 1], in place of `t_star`; 0: `t_star` holds.
    """

    draws = 0

    def __init__(self, network: nn.Module, *, t_star: float = 0.1, sigma: float = 0):
        super().__init__(network, t_star=t_star, steps=1)
        if sigma:
            self.t_star = self.sde.time_of(sigma)
            self.times = grid(self.t_star, self.end, 1)

    @property
    def sigma(self) -> float:
        """The noise, in pixels of [0, 1]."""
        return float(self.sde.level(time(self.t_star)))

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:  # noqa: ARG002
        """The prediction."""
        return self.denoised(u, t)
