"""Noise predictors that are exact for Gaussian data: pixels of the SDE's data are N(MU, S^2), each by itself."""

import torch
from torch import nn

from defenses.networks.sde import sde_of

MU, S = 0.3, 0.4


class Exact(nn.Module):
    """E[z | x_t]: the score of N(m mu, m^2 s^2 + std^2), times -std."""

    def __init__(self, sde="vp", mu=MU, s=S):
        super().__init__()
        self.sde, self.mu, self.s = sde_of(sde), mu, s

    def forward(self, u, t):
        t = t.view(-1, 1, 1, 1)
        m, std = self.sde.mean(t), self.sde.std(t)
        return std * (u - m * self.mu) / (m**2 * self.s**2 + std**2)


def law(sde, t, mu=MU, s=S):
    """(mean, standard deviation) of a pixel at time t."""
    at = torch.tensor(t, dtype=torch.float64)
    m, std = float(sde.mean(at)), float(sde.std(at))
    return m * mu, (m**2 * s**2 + std**2) ** 0.5
