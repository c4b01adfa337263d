"""Descriptions of what purebench has by name: defenses, attacks, data sets, index lists, presets. Imports no torch.

A description is a table of texts, numbers, lists and tables, ready for JSON; `bench.cli.description_text` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.attacks.catalogue import NORMS, catalogue, remarks
from bench.attacks.registry import attack_names, attack_parameters, find_attack
from bench.board import indices
from bench.board.presets import find_preset, preset_names
from bench.board.subsets import published
from defenses.data.dataset import FORMS, NAMES, data_root, dataset_info
from defenses.data.sources.published import CHECKSUMS, Published
from defenses.utils.introspection import Parameters
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_zoo
from defenses.zoo import robustbench_index
from defenses.zoo.cards import COMMON, Card, card, list_models
from defenses.zoo.weight_paths import shipped

_LIBRARY_KINDS = ("imagenet", "cifar10-c", "cifar100-c", "imagenet-c", "imagenet-3dcc")  # data sets of RobustBench
_NOT_TOLD = "not told"  # of parameters without a default that can be read


def defense(name: str) -> Json | None:
    """Return the description of a registered defense or of a model of RobustBench; None for another name."""
    if is_zoo(name):
        return _zoo_model(name)
    if name not in list_models():
        return None
    known = card(name)
    weights = shipped(lambda dataset: known.networks(known.merged(dataset, {}))) if known.weights else []
    return {
        "is": "defense",
        "name": name,
        "about": known.summary,
        "kind": known.kind,
        "family": known.family,
        "paper": " ".join(f"{known.title} ({known.authors}, {known.venue}) {known.url}".split()),
        "licence": known.licence,
        "stochastic": known.stochastic,
        "gradient modes": list(known.gradients),
        "weights that come along": weights if known.weights else "it needs none of its own",
        "parameters": [
            {"parameter": key, "default": value}
            | {data: values[key] for data, values in known.datasets.items() if key in values}
            for key, value in known.parameters.items()
        ],
        "parameters of a composition": [key for key in COMMON[known.kind] if key not in known.parameters],
        "training recipes": [{"recipe": d, "": recipe.get("about", "")} for d, recipe in known.recipes.items()],
        "published claims": _claims(known),
    }


def _claims(known: Card) -> list[dict[str, object]]:
    """Return the claims of a defense's authors, and under each threat the lowest re-evaluation of single draws."""
    lowest: dict[tuple[str, str], JsonView] = {}
    others = [claim for claim in known.claims if claim["kind"] != "claim" and "aggregation" not in claim]
    for claim in sorted(others, key=lambda claim: float(claim["robust"])):
        lowest.setdefault((claim["dataset"], claim["threat"]), claim)
    shown = [claim for claim in known.claims if claim["kind"] == "claim"] + list(lowest.values())
    keys = ("attack", "kind", "dataset", "threat", "clean", "robust", "evidence", "paper", "source")
    return [{key: claim[key] for key in keys} for claim in shown]


def _zoo_model(name: str) -> dict[str, object] | None:
    """Return the description of a model of RobustBench's zoo."""
    local = name.partition(":")[2]
    listed = [
        {"dataset": dataset, "threat_model": threat}
        for dataset in robustbench_index.DATASETS
        for threat in ("Linf", "L2", "corruptions")
        if local in robustbench_index.names(dataset, threat)
    ]
    about = "a classifier of RobustBench's model zoo"
    return {"is": "defense", "name": name, "about": about, "listed for": listed} if listed else None


def attack(name: str) -> Json | None:
    """Return the description of an attack by name; None for another name."""
    if name not in attack_names():
        return None
    found = {"is": "attack", "name": name, "parameters": parameter_rows(attack_parameters(name))}
    entry = next((e for e in catalogue() if e.name == name), None)
    if entry is None:
        return found | {"version": find_attack(name).version, "remarks": "not measured"}
    return {
        **found,
        "kind": f"{entry.kind}{': judged at eps afterwards' if entry.kind == 'minimisation' else ''}",
        "norms": {norm: getattr(entry, norm) for norm in NORMS},
        "targeted": entry.targeted,
        "asks for": entry.asks,
        "randomised defenses": entry.stochastic,
        "needs": entry.needs,
        "remarks": remarks(entry),
    }


def parameter_rows(parameters: Parameters | None) -> list[dict[str, object]] | str:
    """Return the parameters of an attack with their defaults."""
    if parameters is None:
        return "its suite tells none"
    return [
        {
            "parameter": name,
            "default": "required" if name in parameters.required else parameters.defaults.get(name, _NOT_TOLD),
        }
        for name in parameters.names
    ]


def dataset(name: str, root: Path | None = None) -> Json | None:
    """Return the description of a data set that a folder, a file or a library holds; None for another name.

    The arguments and errors are those of `of_dataset`.
    """
    kind, colon, _ = name.partition(":" if ":" in name else "/")
    is_named = name in NAMES or name.endswith(".npz") or kind in _LIBRARY_KINDS
    return of_dataset(name, root) if is_named or (colon and kind in ("corrupted", "folder", "hf")) else None


def of_dataset(name: str, root: Path | None = None) -> dict[str, object]:
    """Return the description of a data set.

    Args:
        name: of the data set.
        root: folder of data sets; None: `defenses.utils.paths.data_root`.

    Raises:
        UserError: files that are missing or damaged.
    """
    info = dataset_info(name, root=root)
    found = {
        "is": "data set",
        "name": name,
        "shape": list(info.shape),
        "classes": info.num_classes,
        "splits": dict(info.splits),
        "revision": info.revision,
    }
    if name not in NAMES:
        return found
    folder = Published(name, data_root(root)).folder if name in CHECKSUMS else None
    files = {f: "there" if folder and (folder / f).is_file() else "missing" for f in CHECKSUMS.get(name, {})}
    return {**found, "files": files or "come with scikit-learn", **({"folder": str(folder)} if folder else {})}


def index_list(name: str) -> dict[str, object] | None:
    """Return the description of the index lists of a publication; None for another name."""
    if meaning := indices.meaning(name):
        return {"is": "index list", "name": name, "about": meaning}
    found = [s for s in published() if s.name == name]
    rows = [{"dataset": s.dataset, "images": len(s.positions()), "source": s.source} for s in found]
    return {"is": "index list", "name": name, "listed for": rows} if found else None


def preset(name: str) -> Json | None:
    """Return the description of a preset; None for another name."""
    if name not in preset_names():
        return None
    known = find_preset(name)
    return {
        "is": "preset",
        "name": name,
        "about": known.summary,
        "source": known.source,
        "how it differs": known.differs or "it is purebench's own",
        "norms": list(known.norms),
        "eps": {f"{data} {norm}": eps for data, radii in known.eps.items() for norm, eps in radii.items()}
        or "to be given",
        "randomised defenses": "judged" if known.stochastic else "refused",
        "sets": {key: value for key, value in known.parts.items() if key not in ("attack", "verdict")}
        | {f"verdict.{key}": value for key, value in known.parts.get("verdict", {}).items()},
        "attacks": [attack_row(entry) for entry in known.parts["attack"]],
    }


def attack_row(entry: dict[str, object]) -> dict[str, object]:
    """Return the row of an attack of a board or preset: what its TOML says."""
    return {"attack": entry["name"]} | {key: value for key, value in entry.items() if key != "name"}


BY_NAME: tuple[Callable[[str], dict[str, object] | None], ...] = (defense, attack, index_list, preset)


def all_names() -> list[str]:
    """Return the names of all that can be described, boards and files apart."""
    return [*list_models(), *attack_names(), *FORMS, *(s.name for s in published()), *preset_names()]
