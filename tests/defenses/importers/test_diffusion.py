"""Importers of score_sde and NCSNv2: every tensor has its place, nothing is skipped, no code runs."""

import pickle

import pytest
import torch
from diffusion_releases import DIGITS, OPTIONS, Code, checkpoint, ncsnv2_states, saved

from defenses.importers.ncsnv2 import ncsnv2
from defenses.importers.registry import import_weights
from defenses.importers.score_sde import score_sde
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network, read_sidecar


def test_score_sde_takes_the_average_by_the_names_of_the_model(tmp_path):
    content, network = checkpoint()
    path = saved(tmp_path / "checkpoint_8.pth", content)
    out = import_weights("score-sde", path, "digits", out=tmp_path / "w" / "digits", options=OPTIONS)
    assert out == tmp_path / "w" / "digits" / "score-sde.safetensors"
    found = load_network("score-sde", "digits", root=tmp_path / "w")
    for (name, p), (other, q) in zip(found.named_parameters(), network.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q + 1)


def test_names_of_the_deep_cifar10_model():
    """The first and last places of cifar10_ddpmpp_deep_continuous in the release's list of modules."""
    with torch.device("meta"):
        network = build_network("ncsnpp")
    shapes = {n: tuple(v.shape) for n, v in network.state_dict().items()}
    assert shapes["all_modules.0.weight"] == (512, 128)
    assert shapes["all_modules.2.weight"] == (128, 3, 3, 3)
    assert shapes["all_modules.3.Dense_0.weight"] == (128, 512)
    # 2 linear, 1 convolution, 8 blocks at 32 pixels, 1 that halves: the first at 16 doubles the channels.
    assert shapes["all_modules.12.Conv_2.weight"] == (256, 128, 1, 1)
    assert shapes["all_modules.13.NIN_3.W"] == (256, 256)
    last = max(int(n.split(".")[1]) for n in shapes)
    assert shapes[f"all_modules.{last}.weight"] == (3, 128, 3, 3)
    # down: 4 levels of 8 blocks, 8 attentions, 3 that halve; middle 3; up: 4 of 9, 1 attention, 3 that double; end 2
    assert last + 1 == 3 + (32 + 8 + 3) + 3 + (36 + 1 + 3) + 2


def dropped(key):
    def change(content):
        del content["model"][key]
        del content["ema"]["shadow_params"][0]

    return change


def extra(content):
    content["model"]["module.surprise"] = torch.zeros(1)
    content["ema"]["shadow_params"].append(torch.zeros(1))


def reshaped(content):
    content["model"]["module.all_modules.0.bias"] = torch.zeros(3)


def shorter(content):
    content["ema"]["shadow_params"].pop()


def reordered(content):
    names = list(content["model"])
    names[1], names[2] = names[2], names[1]
    content["model"] = {n: content["model"][n] for n in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped("module.all_modules.0.weight"), 'all_modules.0.weight" is missing'),
        (extra, 'it has a tensor "surprise" that the network has not'),
        (reshaped, r'all_modules.0.bias" is \[3\], not \[32\]'),
        (shorter, "its average has"),
        (reordered, "another order"),
        (lambda content: content.pop("ema"), "must hold model and ema"),
    ],
)
def test_score_sde_skips_nothing(tmp_path, change, message):
    content, _ = checkpoint()
    change(content)
    with pytest.raises(UserError, match=message) as caught:
        score_sde(str(saved(tmp_path / "c.pth", content)), DIGITS, **OPTIONS)
    assert "c.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_code_never_runs(tmp_path, capsys):
    path = tmp_path / "c.pth"
    path.write_bytes(pickle.dumps({"model": Code(), "ema": {}}))
    for make in (score_sde, ncsnv2):
        with pytest.raises(UserError, match=r"c\.pth cannot be read safely"):
            make(str(path), DIGITS)
    saved(path, {"model": {}, "ema": Code()})
    with pytest.raises(UserError, match=r"c\.pth cannot be read safely"):
        score_sde(str(path), DIGITS)
    with pytest.raises(UserError, match="there is no file"):
        score_sde(str(tmp_path / "none.pth"), DIGITS)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("average", [False, True])
def test_ncsnv2_has_a_place_for_every_tensor(tmp_path, average):
    states = ncsnv2_states()
    path = saved(tmp_path / "best_checkpoint_with_denoising.pth", states)
    import_weights("ncsnv2", path, "digits", out=tmp_path / "w" / "digits", options={"average": average})
    network = load_network("adp", "digits", root=tmp_path / "w")
    given = states[-1]
    assert sum(p.numel() for p in network.parameters()) == sum(v.numel() for v in given.values())
    shift = 0 if average else 0.01
    found = network.state_dict()
    assert torch.equal(found["res2.0.conv2.weight"], given["res2.0.conv2.conv.weight"] + shift)
    assert torch.equal(found["refine4.output.convs.5.weight"], given["refine4.output_convs.3_2_conv.weight"] + shift)
    assert torch.equal(found["refine3.adapt.1.convs.2.weight"], given["refine3.adapt_convs.1.2_1_conv.weight"] + shift)
    assert torch.equal(found["refine2.fuse.1.bias"], given["refine2.msf.convs.1.bias"] + shift)
    assert read_sidecar(tmp_path / "w" / "digits" / "adp.safetensors")["network"]["args"] == {
        "in_channels": 1,
        "ngf": 4,
    }
    assert torch.isfinite(network(torch.rand(1, 1, 8, 8))).all()


def test_ncsnv2_skips_nothing(tmp_path):
    states = ncsnv2_states()
    del states[0]["module.refine1.crp.convs.0.weight"]
    with pytest.raises(UserError, match=r'refine1.pools.0.weight" is missing'):
        import_weights("ncsnv2", saved(tmp_path / "c.pth", states), "digits", out=tmp_path)
    with pytest.raises(UserError, match="list of five entries"):
        ncsnv2(str(saved(tmp_path / "c.pth", states[:4])), DIGITS, average=True)
    with pytest.raises(UserError, match=r'"begin_conv\.weight" is missing'):
        ncsnv2(str(saved(tmp_path / "c.pth", [{"a": torch.zeros(1)}])), DIGITS)
