"""Purification by diffusion: noise up to a time t*, then back to an image by one of five samplers.

Images in the SDE's data are noised, x_t* = m(t*) x + std(t*) z, and denoised over a fixed grid of times.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.networks.sde import SDE, START, time
from defenses.purifiers.diffusion.grids import even_grid, root_grid
from defenses.purifiers.diffusion.prediction import denoised, predicted_noise, reverse_step, score, trained_sde
from defenses.utils.errors import UserError, check_numbers, check_whole
from defenses.utils.modules import shared_copy


class Diffused(Purifier):
    """Base of the samplers: the noise, the grid, and the hooks of gradient modes.

    Args:
        network: noise predictor, (noisy data [B, C, H, W], times [B]) -> noise, with its SDE as attribute `sde`.
        t_star: time of the noised image, above `end` and at most 1.
        steps: number of steps back.
        rounds: number of times that the image is noised and denoised.

    Raises:
        UserError: a value out of range, or a network without an SDE.
    """

    paths: tuple[str, ...] = ("network",)
    end: float = START  # last time of the grid
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
        """Return the steps + 1 times of a round. Default: equally far apart."""
        return even_grid(self.t_star, self.end, steps)

    @property
    def sde(self) -> SDE:
        """Return the SDE of the network's training."""
        return trained_sde(self.network)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one normal draw before the first step, and `draws` in every step, one more for several rounds."""
        return NoiseSpec(start=(Draw(shape),), step=(Draw(shape),) * (self.draws + (self.rounds > 1)))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return the noised image m(t*) x + std(t*) z, in the SDE's data."""
        return {"u": self._noised(self.sde.encode(x), z[0])}, {}

    def _noised(self, u: Tensor, z: Tensor) -> Tensor:
        t = time(self.t_star)
        return self.sde.mean(t) * u + self.sde.std(t) * z

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Move from a time of the grid to the next; add noise first in every round but the first."""
        u, i = state["u"], k % (len(self.times) - 1)
        draws = tuple(v.to(u.dtype) for v in z)
        if k and i == 0:
            u = self._noised(u, draws[-1])
        return {"u": self.move(u, ctx, self.times[i], self.times[i + 1], draws)}

    @abstractmethod
    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Move u [B, C, H, W] from time t to time s < t."""

    def finish(self, state: State, ctx: State) -> Tensor:
        """Scale images back to [0, 1], without a clamp."""
        return self.sde.decode(state["u"])

    def denoised(self, u: Tensor, t: float) -> Tensor:
        """Return E[x_0 | x_t = u] by Tweedie's formula."""
        return denoised(self.network, u, t)

    def surrogate(self, steps: int | None = None) -> Purifier | None:
        """Return a purifier of fewer, larger steps over the same times (Lee & Kim 2023).

        Args:
            steps: number of steps of all rounds; None: a quarter.

        Raises:
            UserError: not fewer steps than the purifier's, or no multiple of the rounds.
        """
        if len(self.times) < 3:
            return None
        self._check_fewer(steps)
        if steps is not None and (steps < 1 or steps % self.rounds):
            raise UserError(
                f"a surrogate of {steps} steps does not share them among {self.rounds} rounds evenly; "
                f"take a multiple of {self.rounds}"
            )
        each = max(1, (len(self.times) - 1) // 4) if steps is None else steps // self.rounds
        return shared_copy(self, steps=self.rounds * each, times=self.grid(each))

    def one_step(self) -> Callable[[State, State], State]:
        """Return the step from t* to E[x_0 | x_t*]."""
        return lambda state, _: {"u": self.denoised(state["u"], self.t_star)}

    def score_direction(self) -> Callable[[Tensor], Tensor]:
        """Return the direction of the score at time t*, at the image without noise."""
        scale = self.sde.mean(time(self.t_star))
        return lambda x: -predicted_noise(self.network, scale * self.sde.encode(x), self.t_star)


class ReverseSDE(Diffused):
    """DiffPure (Nie et al. 2022, arXiv 2205.07460): Euler-Maruyama steps of the reverse SDE. One call a step."""

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Make one step of the reverse SDE, without noise at the end of the grid."""
        return reverse_step(self.network, u, t, s, None if s == self.end else z[0])


class PredictorCorrector(Diffused):
    """Steps of the reverse SDE, each but the last followed by one of Langevin dynamics. 2n - 1 calls in n steps.

    Algorithm 1 of Song et al. 2021. The corrector's step is 2 alpha (snr |z| / |s|)^2 with the norms of each image; the
    reference averages the norms over the batch, so that an image's result depends on the others. The step does not
    shrink on finer grids: many correctors lead from the image to another of the same law. With normal data of one
    variance, each multiplies the covariance with the image by 1 - 2 snr^2.

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
        """Return the corrector's step size [B, 1, 1, 1]."""
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp_min(torch.finfo(z.dtype).tiny)
        size: Tensor = 2 * self.sde.corrector(time(t)) * (self.snr * ratio) ** 2
        return size.view(-1, 1, 1, 1)

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Predict, then correct; the last prediction has no noise and is not corrected."""
        if s == self.end:
            return reverse_step(self.network, u, t, s, None)
        u = reverse_step(self.network, u, t, s, z[0])
        direction = score(self.network, u, s)
        size = self.step_size(direction, z[1], s)
        return u + size * direction + torch.sqrt(2 * size) * z[1]


class FlowODE(Diffused):
    """The probability-flow ODE from the noisy image back, by Heun's method. 2n - 1 calls in n steps.

    With r = std / m it reads d(x / m) = (the noise in x) dr (Karras et al. 2022, arXiv 2206.00364), which is exact for
    pixels that do not vary in the data; dx/dt is as stiff as 1/t there. The last step is Euler's, so that the network
    is not evaluated at the end of the grid. Times are even in their roots, as VP's std is for short times.

    Noise is added first: encoding and decoding by the ODE alone is invertible, and purifies nothing.
    """

    draws = 0

    def grid(self, steps: int) -> tuple[float, ...]:
        """Return the steps + 1 times, even in their roots."""
        return root_grid(self.t_star, self.end, steps)

    def velocity(self, u: Tensor, t: float) -> Tensor:
        """Return dx/dt = a x - 1/2 g^2 s."""
        at = time(t)
        return self.sde.rate(at) * u - self.sde.diffusion(at) ** 2 / 2 * score(self.network, u, t)

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Make one step of Heun's method; see the class."""
        (m, std), (m_to, std_to) = ((self.sde.mean(at), self.sde.std(at)) for at in (time(t), time(s)))
        length = m_to * (std_to / m_to - std / m)
        first, u = predicted_noise(self.network, u, t), m_to / m * u
        if s == self.end:
            return u + length * first
        return u + length / 2 * (first + predicted_noise(self.network, u + length * first, s))


class Ancestral(Diffused):
    """DDPM's sampler (Ho et al. 2020), with optional guidance by the image (GDMP, Wang et al. 2022). One call a step.

    From t to s the law of x_s given x_t and x_0 is known; x_0 is replaced by its prediction, and the variance is the
    larger of DDPM's two, std_t^2 - (m_t / m_s)^2 std_s^2. The last step gives the predicted x_0 itself. Guidance moves
    the mean by variance * guidance * std_t / m_t * (x'_t - u), with x'_t the image under fresh noise of time t: down
    the squared distance. Gradients reach the image through the guidance too.

    The release takes the mean squared error over the whole batch, so that guidance gets weaker with the batch's size;
    its guide_scale of 60000 at batch 100 is a guidance of 18.7 here.

    Args:
        network: see `Diffused`.
        t_star: see `Diffused`; the release's 36 of 1000 steps are .036.
        steps: see `Diffused`.
        rounds: see `Diffused`; the release makes four.
        guidance: strength of the guidance; 0 is DDPM alone.
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
        """Return the noised image; under guidance the image itself is context."""
        state, ctx = super().start(x, z)
        return state, {"image": self.sde.encode(x)} if self.guidance else ctx

    def pull(self, u: Tensor, image: Tensor, t: float, z: Tensor) -> Tensor:
        """Return half the negative gradient, at u, of the squared distance to the image under noise of time t."""
        at = time(t)
        return self.sde.mean(at) * image + self.sde.std(at) * z - u

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Make one step; see the class."""
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

    m(t*) x + std(t*) z is m(t*) times the image under Gaussian noise: before a classifier it is a smoothed classifier,
    and needs no other noise.

    Args:
        network: see `Diffused`.
        t_star: see `Diffused`.
        sigma: standard deviation of that noise, in pixels of [0, 1], in place of `t_star`; 0: use `t_star`.
    """

    draws = 0

    def __init__(self, network: nn.Module, *, t_star: float = 0.1, sigma: float = 0):
        super().__init__(network, t_star=t_star, steps=1)
        if sigma:
            self.t_star = self.sde.time_of(sigma)
            self.times = even_grid(self.t_star, self.end, 1)

    @property
    def sigma(self) -> float:
        """Return the standard deviation of the noise, in pixels of [0, 1]."""
        return float(self.sde.level(time(self.t_star)))

    def move(self, u: Tensor, ctx: State, t: float, s: float, z: tuple[Tensor, ...]) -> Tensor:
        """Return the predicted clean image."""
        return self.denoised(u, t)
