"""The importer of diffusers: folders, pipelines with their schedules, the hub."""

import pytest
import torch
from diffusion_releases import DIGITS, Code, run, saved

from defenses import load_model
from defenses.core.noise import Noise
from defenses.importers.diffusers import unet as diffusers_unet
from defenses.importers.registry import import_weights
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import load_network

UNET = {
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
}


@pytest.fixture
def folder(tmp_path):
    from diffusers import UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **UNET)
    unet.save_pretrained(tmp_path / "model")
    return tmp_path / "model", unet


def test_a_folder_of_diffusers(folder, tmp_path):
    path, unet = folder
    import_weights("diffusers", path, "digits", out=tmp_path / "w" / "digits")
    network = load_network("ddpm", "digits", root=tmp_path / "w")
    x, t = torch.rand(3, 1, 8, 8), torch.tensor([0.1, 0.2, 0.9])
    with torch.no_grad():
        torch.testing.assert_close(network(x, t), unet(x, 999 * t).sample)
    with pytest.raises(UserError, match="of another data set: its in_channels is 1, and cifar10 has 3"):
        import_weights("diffusers", path, "cifar10", out=tmp_path / "w" / "cifar10")
    defense = load_model("gdmp", "digits", weights_root=tmp_path / "w", network="ddpm", steps=2, rounds=1)
    assert torch.isfinite(defense.logits(x, Noise.of(0, 3))).all()


def test_code_in_a_folder_never_runs(folder, tmp_path, capfd):
    path, unet = folder
    unet.save_pretrained(path, safe_serialization=False)
    (path / "diffusion_pytorch_model.safetensors").unlink()
    out = ["--dataset", "digits", "--out", tmp_path / "w"]
    assert run("diffusers", path, *out) == 0
    saved(path / "diffusion_pytorch_model.bin", {"conv_in.weight": Code()})
    capfd.readouterr()
    assert run("diffusers", path, *out, "--name", "other") == 2
    out, error = capfd.readouterr()
    assert "code ran" not in out + error
    assert error.count("\n") == 1, error


def test_a_pipeline_with_its_schedule(folder, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    _, unet = folder
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "good")
    diffusers_unet(str(tmp_path / "good"), DIGITS)
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path / "cosine")
    with pytest.raises(UserError, match="another schedule: its beta_schedule is squaredcos_cap_v2, not linear"):
        diffusers_unet(str(tmp_path / "cosine"), DIGITS)


def test_weights_that_do_not_fit_their_config(folder):
    from safetensors.torch import load_file, save_file

    path, _ = folder
    file = path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors.pop("conv_in.weight")
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"conv_in\.weight"):
        diffusers_unet(str(path), DIGITS)


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    from diffusers import UNet2DModel

    def fail(*_args, **_options):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(UNet2DModel, "from_pretrained", fail)
    with pytest.raises(UserError, match='cannot load "google/ddpm-cifar10-32" through diffusers') as caught:
        diffusers_unet("google/ddpm-cifar10-32", DIGITS)
    assert "\n" not in str(caught.value)
