"""A suite of your own, as a package: installed beside purebench, its attacks are "own:corner" and "own:towards".

purebench finds it by the entry point in pyproject.toml. Nothing heavy is imported at the top: `purebench ls attacks`
asks for the names.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial

from bench.attacks import Attack, Unsupported
from defenses import UserError

_PARAMETERS = {"corner": ("tries",), "towards": ("value",)}


def names() -> list[str]:
    """Return the attacks of the suite, without its own name."""
    return list(_PARAMETERS)


def find(local: str, params: dict) -> Attack:
    """Return the attack of a name; wrong names and parameters are refused here, before anything runs."""
    _check("attack", f"own:{local}", [f"own:{name}" for name in _PARAMETERS])
    for name in params:
        _check(f"parameter of own:{local}", name, _PARAMETERS[local])
    run = {"corner": _corner, "towards": _towards}[local]
    return Attack(name=f"own:{local}", run=partial(_linf, run), minimisation=False, version="own 1")


def _check(what: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that does not exist, and give the nearest one."""
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise UserError(f'unknown {what} "{name}"; {hint}')


def _linf(run, view, x, y, *, threat, **given):
    if threat.norm != "Linf":
        raise Unsupported(f"the suite own knows Linf alone, not {threat.norm}")  # a visible row with this reason
    return run(view, x, y, threat=threat, **given)


def _corner(view, x, y, *, threat, seed, tries=4, **_):
    """Return the best of some random corners of the ball; randomness comes from `seed` alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    best, worst = x.clone(), torch.full((len(x),), -torch.inf)
    for _ in range(tries):
        sign = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        candidate = (x + float(threat.eps) * sign).clamp(0, 1)
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(view(candidate), y, reduction="none")
        better = (loss > worst).view(-1, 1, 1, 1)
        best, worst = torch.where(better, candidate, best), torch.maximum(loss, worst)
    return best


def _towards(view, x, y, *, threat, value=0.5, **_):
    """Move every pixel towards one value: a loss of contrast, without a query."""
    return x + (value - x).clamp(-float(threat.eps), float(threat.eps))
