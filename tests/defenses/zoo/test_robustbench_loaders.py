"""Loading: calls as RobustBench's own, checkpoints that are damaged or hostile, downloads that fail."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from robustbench.model_zoo.enums import ThreatModel
from zoo import CORRUPT, SMALL, empty_cache, make_checkpoint

from defenses import load_model
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import find_weights


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return root, make_checkpoint(root)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    return empty_cache(tmp_path, monkeypatch)


def test_a_model_of_the_zoo_is_what_robustbench_loads(checkpoint, nowhere):
    from robustbench.utils import load_model as their_load_model

    root, _ = checkpoint
    before = torch.random.get_rng_state()
    model = load_model(f"robustbench:{SMALL}", weights_root=root, **CORRUPT)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    direct = their_load_model(SMALL, model_dir=root / "robustbench", **CORRUPT)
    assert torch.equal(model(x), direct(x))
    assert not model.stochastic
    assert (model.num_classes, model.input_shape) == (10, (3, 32, 32))


def test_a_model_is_found_where_robustbench_keeps_it(checkpoint, nowhere, monkeypatch):
    download(monkeypatch, b"", OSError("it is at hand"))
    root, _ = checkpoint
    model = load_model(f"robustbench:{SMALL}", model_dir=root / "robustbench", **CORRUPT)
    assert model.provenance.state == load_model(f"robustbench:{SMALL}", weights_root=root, **CORRUPT).provenance.state
    monkeypatch.setenv("PUREBENCH_WEIGHTS", os.pathsep.join([str(root / "elsewhere"), str(root / "robustbench")]))
    assert model.provenance.state == load_model(f"robustbench:{SMALL}", **CORRUPT).provenance.state
    with pytest.raises(UserError, match="could not be downloaded"):
        load_model(f"robustbench:{SMALL}", model_dir=root / "elsewhere", **CORRUPT)


@pytest.mark.parametrize("threat_model", ["Linf", "l2", ThreatModel.L2])
def test_a_registered_defense_takes_robustbenchs_call(threat_model, tmp_path):
    plain = load_model("pgd-at")
    called = load_model("pgd-at", dataset="digits", threat_model=threat_model, model_dir="./models")
    assert called.provenance == plain.provenance
    path = find_weights("undefended", "digits")
    (tmp_path / "digits").mkdir()
    for ending in (".safetensors", ".json"):
        shutil.copy(path.with_suffix(ending), tmp_path / "digits" / f"pgd-at{ending}")
    first = load_model("pgd-at", dataset="digits", threat_model=threat_model, model_dir=str(tmp_path))
    assert first.provenance.fingerprint["weights"] != plain.provenance.fingerprint["weights"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"threat_model": "Linff"}, 'threat_model is "Linff"; pgd-at is attacked in the norms Linf, L2, L1, L0'),
        ({"threat_model": ThreatModel.corruptions}, "corrupted images are a data set"),
        ({"model_dir": "a", "weights_root": "b"}, "say the same; give one"),
        ({"model_dir": 3}, "model_dir is 3; give a folder"),
        ({"threatmodel": "Linf"}, "unknown parameter of pgd-at"),
    ],
)
def test_calls_that_mean_nothing_are_refused_in_one_line(given, words):
    with pytest.raises(UserError, match=words) as caught:
        load_model("pgd-at", dataset="digits", **given)
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_is_never_unpickled(nowhere, tmp_path, monkeypatch):
    nowhere.mkdir(parents=True)
    torch.save({"state_dict": {"a": Bomb(tmp_path / "ran")}}, nowhere / f"{SMALL}.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="holds more than tensors") as caught:
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_a_damaged_checkpoint_is_named(checkpoint, nowhere):
    nowhere.mkdir(parents=True)
    file = nowhere / f"{SMALL}.pt"
    file.write_bytes(checkpoint[1].read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"WRN\.pt cannot be loaded: .*mend it or remove it"):
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, file)
    with pytest.raises(UserError, match="cannot be loaded: RuntimeError: Error"):
        load_model(f"robustbench:{SMALL}", **CORRUPT)


def download(monkeypatch, content, error=None):
    """Let Google Drive send this."""
    import robustbench.utils

    def send(id, output):
        Path(output).write_bytes(content)
        if error is not None:
            raise error

    monkeypatch.setattr(robustbench.utils.gdown, "download", send)


def test_a_model_is_downloaded_once(checkpoint, nowhere, monkeypatch, capsys):
    download(monkeypatch, checkpoint[1].read_bytes())
    load_model(f"robustbench:{SMALL}", **CORRUPT)
    assert [f.name for f in nowhere.iterdir()] == [f"{SMALL}.pt"]
    assert capsys.readouterr().out == ""
    download(monkeypatch, b"", OSError("not twice"))
    load_model(f"robustbench:{SMALL}", **CORRUPT)


@pytest.mark.parametrize("kind", ["half", "page", "nothing"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(checkpoint, nowhere, monkeypatch, kind):
    half = checkpoint[1].read_bytes()[:50_000]
    error = ConnectionError("the line\nbroke") if kind == "nothing" else None
    download(monkeypatch, {"half": half, "page": b"<html>quota</html>", "nothing": half}[kind], error)
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        load_model(f"robustbench:{SMALL}", **CORRUPT)
    message = str(caught.value)
    assert "\n" not in message
    assert str(nowhere / f"{SMALL}.pt") in message
    assert "https://drive.google.com/file/d/" in message
    assert list(nowhere.iterdir()) == []


def test_models_that_timm_hosts_go_up_to_the_download(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def no_network(url, *_, **__):
        asked.append(getattr(url, "full_url", url))
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(UserError, match=r"OSError: no network\); save https://.*xcit-s-cifar10-linf.pth.tar by hand"):
        load_model("robustbench:Debenedetti2022Light_XCiT-S12", "cifar10")
    assert len(asked) == 1
