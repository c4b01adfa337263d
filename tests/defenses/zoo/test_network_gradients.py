"""Gradient modes that a card has by the kind of its network."""

import pytest
import torch

from defenses.core.smooth_activations import smooth
from defenses.networks.registry import build_network, kinds
from defenses.zoo.cards import card

EXTERNAL = {"robustbench", "timm"}  # of any architecture
ROLES = {
    "ebm-mcmc": "energy of images in [-1, 1]",
    "igebm": "energy of images in [0, 1]",
    "jem-refine": "classifier",
}


@pytest.mark.parametrize("name", ROLES)
def test_smooth_is_a_mode_where_the_network_has_piecewise_linear_activations(name):
    with torch.device("meta"):
        networks = {kind: build_network(kind) for kind in kinds(ROLES[name]) if kind not in EXTERNAL}
    told = card(name).network_gradients
    assert set(told) <= set(networks)
    for kind, network in networks.items():
        assert told.get(kind, []) == (["smooth"] if smooth(network, 0.1) is not network else []), kind
