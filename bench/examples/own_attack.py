"""An attack of your own: a function. name = "own_attack.py:sign_steps".

It gets the view (a module from images to logits; what gradient and how many copies is the board's business), x and y,
and by name what it wants of threat, target, seed, num_classes and indices. All other arguments are its parameters. It
returns adversarial images and makes no claims: they are judged on the deployed defense, under draws it never saw.
"""

import torch
from torch import Tensor


def sign_steps(view, x: Tensor, y: Tensor, *, threat, steps: int = 3) -> Tensor:
    """Take projected sign-gradient steps in the Linf ball.

    Args:
        view: images [B, C, H, W] in [0, 1] -> logits [B, K].
        x: clean images.
        y: labels [B].
        threat: has norm, eps and targets.
        steps: how many; the step is 2 eps over their number.
    """
    eps = float(threat.eps)
    u = x.clone()
    for _ in range(steps):
        u.requires_grad_()
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(view(u), y, reduction="sum"), u)
        u = u.detach() + 2 * eps / steps * gradient.sign()
        u = u.clamp(x - eps, x + eps).clamp(0, 1)
    return u
