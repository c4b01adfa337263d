"""The models and attacks of the faults: the file that their boards name."""

import boards

from faults.attacks import ATTACKS

MODELS = (
    boards.MODELS
    + '''

class Wrapped(nn.Module):
    """A linear classifier that something is wrong with."""

    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.eval()

    def forward(self, x):
        return self.inner(x)


class Once:
    """Counts calls without being part of a module's state."""

    calls = 0


class Pooled(nn.Module):
    """An honest network with max pooling."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.layer = nn.Conv2d(1, 16, 3), nn.Linear(144, 10)
        for p in self.parameters():
            p.data = 0.3 * torch.randn(p.shape, generator=generator)
        self.eval()

    def forward(self, x):
        return self.layer(nn.functional.max_pool2d(self.conv(x).relu(), 2).flatten(1))


class PooledInTrainMode(Pooled):
    """The same, in the mode in which modules are made."""

    def __init__(self):
        super().__init__()
        self.train()


class Sure(Pooled):
    """Probabilities so near to 0 and 1 that they have no gradient."""

    def forward(self, x):
        return (60 * super().forward(x)).softmax(1)


class Rounds(Pooled):
    """The same behind pixels that are rounded, which leaves a gradient of zero."""

    def forward(self, x):
        return super().forward((4 * x).round() / 4)


class ThirdBatch(Wrapped):
    """Raises on its third batch of a whole block under a gradient."""

    def forward(self, x):
        if x.requires_grad and len(x) == 20:
            Once.calls += 1
            if Once.calls > 2:
                raise RuntimeError("third batch")
        return self.inner(x)


class Exits(Wrapped):
    """Leaves the program when a gradient is asked."""

    def forward(self, x):
        if x.requires_grad:
            raise SystemExit(0)
        return self.inner(x)


def doomed(x):
    """Whether a gradient is asked at the clean images of the first block, which one attack does in one cell."""
    from defenses.data.dataset import load_dataset
    return x.requires_grad and torch.equal(x[0], load_dataset("digits").x[0])


class Dies(Wrapped):
    """Kills its own process in one cell."""

    def forward(self, x):
        if doomed(x):
            import os
            import signal
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)


class Leaves(Wrapped):
    """Ends its process, as if all were well, in one cell."""

    def forward(self, x):
        if doomed(x):
            import os
            os._exit(0)
        return self.inner(x)


class Crashes(Wrapped):
    """Reads where no memory is, in one cell."""

    def forward(self, x):
        if doomed(x):
            import ctypes
            import resource
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core file
            ctypes.string_at(0)
        return self.inner(x)


class Hangs(Wrapped):
    """Never comes back in one cell."""

    def forward(self, x):
        if doomed(x):
            import time
            while True:
                time.sleep(0.05)
        return self.inner(x)


class Presses(Wrapped):
    """Says that a key was pressed, when a gradient is asked."""

    def forward(self, x):
        if x.requires_grad:
            raise KeyboardInterrupt
        return self.inner(x)


KEPT = []


class Leaks(Wrapped):
    """Takes 200 MB again and again, in one cell."""

    def forward(self, x):
        while doomed(x):
            KEPT.append(bytearray(200_000_000))
        return self.inner(x)


class Counts(Wrapped):
    """Its answers depend on how often it was asked."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.inner(x)


class LearnsLate(Wrapped):
    """Changes a weight when a gradient is asked."""

    def forward(self, x):
        if x.requires_grad:
            self.inner[1].bias.data[0] += 5.0
        return self.inner(x)


class RunningStatistics(Wrapped):
    """Says that it is in evaluation mode and updates its statistics all the same."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.eval()

    def forward(self, x):
        nn.functional.batch_norm(x.detach(), self.norm.running_mean, self.norm.running_var, training=True)
        return self.inner(x)


class Prints(Wrapped):
    """Prints a megabyte for every batch, with terminal escapes."""

    def forward(self, x):
        import sys
        print("\\x1b[2Jloud " * 100_000)
        print("\\x1b[2Jloud " * 100_000, file=sys.stderr)
        return self.inner(x)


class Writes(Wrapped):
    """Writes into the images when a gradient is asked."""

    def forward(self, x):
        if x.requires_grad:
            x.data.zero_()
        return self.inner(x)


class LateNaN(Wrapped):
    """NaN for images that are not the clean ones of the data set: they have pixels off the grid of sixteenths."""

    def forward(self, x):
        off = ((x * 16).round() - x * 16).abs().flatten(1).amax(1) > 1e-4
        return torch.where(off[:, None], torch.full_like(self.inner(x), float("nan")), self.inner(x))


class LateInf(LateNaN):
    """The same with infinity for the right class."""

    def forward(self, x):
        return torch.where(super().forward(x).isnan(), torch.full((), float("inf")), self.inner(x))


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, value):
        ctx.value = value
        return z.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.full_like(g, ctx.value), None


class GradientNaN(Wrapped):
    """Right logits, and NaN for a gradient."""

    value = float("nan")

    def forward(self, x):
        return NoGradient.apply(self.inner(NoGradient.apply(x, self.value)), 1.0)


class Hidden(Wrapped):
    """Right logits without a graph to the image."""

    def forward(self, x):
        return self.inner(x).detach()


class GradientInf(GradientNaN):
    """Right logits, and an infinite gradient."""

    value = float("inf")


class Shouts(Wrapped):
    """Raises a message of a megabyte with markup, escapes and many lines."""

    def forward(self, x):
        if x.requires_grad:
            raise RuntimeError("\\x1b[2J<script>alert(1)</script>\\u202e|" + "x" * 1_000_000 + "\\nsecond line")
        return self.inner(x)
'''
    + ATTACKS
)
