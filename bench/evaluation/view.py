"""Attack views: the modules that attack libraries query and differentiate in place of the defense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from bench.evaluation.batching import BatchLimit, release_cached_memory
from bench.evaluation.chunked import piecewise
from bench.evaluation.devices import device_of
from bench.evaluation.gradient_hook import on_gradient
from bench.evaluation.meter import Meter
from bench.evaluation.search import changes_logits, searched_in
from bench.evaluation.verdict import known_noise
from bench.spec.compute import Compute
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense, Purified, UserModule
from defenses.core.gradient_modes import NUMBERS, check_mode, variant
from defenses.core.noise import Noise

NO_GRADIENT = (
    "the logits have no gradient to the image (a detach, no_grad, or layers without one, as quantised ones); use "
    "attacks that need none, as bench:square"
)


class _Count:
    """Counters of a view; attributes of a module would be slow to set."""

    def __init__(self, watch: Callable[[int], None] | None) -> None:
        self.calls = 0
        self.queries = 0
        self.watch = watch

    def add(self, images: int) -> None:
        """Count queries."""
        self.queries += images
        if self.watch is not None:
            self.watch(self.queries)


class AttackView(nn.Module):
    """A view of a defense for attack libraries: images float32 [B, C, H, W] in [0, 1] -> logits [B, K].

    Every call draws new noise, keyed by (seed, number of the call, row), so that a library that reseeds the global
    generators does not repeat it; under a known seed all calls draw the noise of the verdict. Calls return new
    tensors, which a library may write into. The view works under `torch.autograd.grad` and `.backward()`, with or
    without `retain_graph`.

    Args:
        defense: the defense.
        spec: gradient mode, copies, runs and output of the view.
        seed: of the view's noise; that of the verdict where the attacker knows it.
        rows: at most this many images times copies go through the defense at once (memory).
        memory: limit of the batch, halved when memory runs out; pieces get the same noise. A user-defined random module
            draws once per piece, so its draws change.
        watch: called at every query with the number of images queried so far.

    Raises:
        UserError: the defense does not support the gradient mode, or not with its number.
    """

    def __init__(
        self,
        defense: Defense,
        spec: ViewSpec,
        *,
        seed: int,
        rows: int = 8192,
        memory: BatchLimit | None = None,
        watch: Callable[[int], None] | None = None,
    ):
        super().__init__()
        check_mode(spec.gradient, defense.gradients)
        if spec.mode in NUMBERS and isinstance(defense, Purified):
            variant(defense.purifier, spec.gradient)  # refuses a bad number before any work is done
        self.defense, self.spec, self.seed = defense, spec, seed
        self._count = _Count(watch)
        self._memory = BatchLimit(defense) if memory is None else memory
        self.stochastic = defense.stochastic and spec.gradient != "blind"
        self._network = _network_of(defense)
        deployed: int = getattr(defense, "runs", 1)
        self._per_pass = max(1, rows // (spec.eot * (spec.runs or deployed)))
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # some libraries read its device
        self._streams: Noise | None = None
        self.train(False)

    @property
    def queries(self) -> int:
        """Return the number of images that the attack has queried so far."""
        return self._count.queries

    @property
    def memory(self) -> BatchLimit:
        """Return the limit of the batch, for an attack that queries the defense directly."""
        return self._memory

    def count_queries(self, images: int) -> None:
        """Add images that an attack has queried the defense with directly."""
        self._count.add(images)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W].

        Raises:
            FloatingPointError: the logits of finite images are not finite; in the backward pass, their gradient.
        """
        count = self._count
        count.calls += 1
        count.add(x.size(0))  # len(x) takes a frame of Python
        if x.requires_grad and torch.is_grad_enabled():
            x, images = x.view_as(x), x
            on_gradient(x, partial(_refuse_nan, images))
        logits = self._logits(x)
        values = logits.detach() if logits.requires_grad else logits
        # Some attacks query NaN images themselves (Foolbox's boundary attack, for images wrong from the start).
        if not math.isfinite(values.sum().item()) and not _only_from_bad_images(x, logits):
            raise FloatingPointError("the defense returned logits that are not finite during the attack")
        return logits

    def _logits(self, x: Tensor) -> Tensor:
        rows, memory = x.size(0) * (self.spec.eot if self.stochastic else 1), self._memory
        if rows > memory.asked:
            memory.asked = rows
        if memory.limit is None:
            try:
                return self._at_once(x)
            except Exception as error:
                if not memory.ran_out(error, rows):
                    raise
            release_cached_memory()
        return self._piece_by_piece(x)

    def _at_once(self, x: Tensor) -> Tensor:
        if self.stochastic or x.size(0) > self._per_pass:
            return self._in_parts(x)
        if self._network is not None:
            logits = self._network(x)
        else:
            logits = self.defense.logits(x, self._unused_noise(x), gradient=self.spec.gradient)
        # Square writes into the logits, which may be a tensor that the network keeps.
        return logits if logits.requires_grad else logits.clone()

    def _piece_by_piece(self, x: Tensor) -> Tensor:
        """Return the logits, with as many rows at once as memory allows."""
        gradient = self.spec.gradient
        if not self.stochastic:
            return piecewise(partial(self.defense.logits, gradient=gradient), x, self._unused_noise(x), self._memory)
        return self._expectation(x, self._call_noise(x), in_pieces=True)

    def _call_noise(self, x: Tensor) -> Noise:
        """Return the B noise streams of this call."""
        if self.spec.known:
            return known_noise(self.seed, len(x), x.device)
        return Noise.of(self.seed, len(x), x.device).child(self._count.calls)

    def _unused_noise(self, x: Tensor) -> Noise:
        """Return B streams for a deterministic defense; those of the last call, since most calls have its B."""
        streams = self._streams
        if streams is None or len(streams) != len(x) or streams.keys.device != x.device:
            streams = self._streams = Noise.of(self.seed, len(x), x.device)
        return streams

    def _in_parts(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self._per_pass)
        if not self.stochastic:
            mode = self.spec.gradient
            return torch.cat([self.defense.logits(p, self._unused_noise(p), gradient=mode) for p in parts])
        keys = torch.split(self._call_noise(x).keys, self._per_pass)
        return torch.cat([self._expectation(p, Noise(k)) for p, k in zip(parts, keys, strict=True)])

    def _expectation(self, x: Tensor, noise: Noise, *, in_pieces: bool = False) -> Tensor:
        """Return the output [B, K] combined from all copies."""
        by_copy = self._copies(x, noise, in_pieces=in_pieces)
        n = self.spec.eot
        if self.spec.output == "logits":
            return by_copy.mean(1)
        return by_copy.log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(float(n), device=x.device))

    def _copies(self, x: Tensor, noise: Noise, *, in_pieces: bool) -> Tensor:
        """Return the logits of every copy [B, EOT, K]."""
        n, gradient = self.spec.eot, self.spec.gradient
        # A known seed means the draw of the verdict itself, not a copy with other noise.
        streams, user_module = noise if self.spec.known else noise.copies(n), isinstance(self.defense, UserModule)
        runs = None if user_module else self.spec.runs

        def logits_of(images: Tensor, noise: Noise) -> Tensor:
            if in_pieces:
                call = partial(self.defense.logits, gradient=gradient, runs=runs)
                return piecewise(call, images, noise, self._memory, redivide=not user_module)
            return self.defense.logits(images, noise, gradient=gradient, runs=runs)

        if user_module and self.spec.known:
            keys = streams.keys.split(1)  # the draw of a row depends on its batch
            return torch.stack([logits_of(row, Noise(k)) for row, k in zip(x.split(1), keys, strict=True)])
        if user_module:
            # It draws once per batch: copies in one call would share a draw.
            keys = streams.keys.view(len(x), n, 2)
            return torch.stack([logits_of(x, Noise(keys[:, i])) for i in range(n)], 1)
        copies = x.repeat_interleave(n, 0) if n > 1 else x
        return logits_of(copies, streams).view(len(x), n, -1)

    def train(self, mode: bool = True) -> AttackView:
        """Stay in evaluation mode; libraries switch modes around an attack."""
        return super().train(False)


@contextmanager
def attack_view(
    defense: Defense,
    spec: ViewSpec,
    *,
    seed: int,
    rows: int = 8192,
    memory: BatchLimit | None = None,
    watch: Callable[[int], None] | None = None,
    compute: Compute = Compute(),  # noqa: B008 - frozen
) -> Iterator[tuple[AttackView, Meter]]:
    """Yield a view of a defense with frozen parameters (so that no `.grad` piles up), and the meter of its cost.

    The defense computes as `compute` says until the view is left; the parameters' `requires_grad` flags are restored
    then. Other arguments as of `AttackView`.
    """
    flags = [(p, p.requires_grad) for p in defense.parameters()]
    meter = Meter(defense.cost_modules())
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        with searched_in(compute, defense):
            view = AttackView(defense, spec, seed=seed, rows=rows, memory=memory, watch=watch)
            yield view.to(device_of(defense)), meter
    finally:
        meter.detach()
        for p, flag in flags:
            p.requires_grad_(flag)


def _network_of(defense: Defense) -> Callable[[Tensor], Tensor] | None:
    """Return the network whose output is the logits of a defense, whatever the noise; None: the defense does more."""
    if changes_logits(defense):
        return None
    if type(defense) is Classifier:
        return partial(defense.network)  # as a module it would become a child of the view
    if type(defense) is UserModule and not defense.stochastic:
        return partial(defense.module)
    return None


def _refuse_nan(x: Tensor, gradient: Tensor | None) -> None:
    """Raise on a gradient that is missing or not finite: the failure of the attack would pass for robustness."""
    if gradient is None:
        raise RuntimeError(NO_GRADIENT)
    if not math.isfinite(gradient.sum().item()) and not _only_from_bad_images(x, gradient.flatten(1)):
        raise FloatingPointError("the gradient through the defense is not finite during the attack")


def _only_from_bad_images(x: Tensor, logits: Tensor) -> bool:
    """Return True if only images x [B, ...] that are not finite have logits [B, K] that are not."""
    return bool((logits.isfinite().all(1) | ~x.isfinite().flatten(1).all(1)).all())
