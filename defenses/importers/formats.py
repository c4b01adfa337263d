"""Formats of published checkpoints, by name; their modules need torch, so they are not imported here."""

FORMATS = {  # name -> the function that returns the `Checkpoint` of a file, folder or id
    "hill-ebm": "defenses.importers.hill:energy",
    "hill-clf": "defenses.importers.hill:classifier",
    "cifar-resnet": "defenses.importers.cifar_resnet:cifar_resnet",
    "score-sde": "defenses.importers.score_sde:score_sde",
    "ncsnv2": "defenses.importers.ncsnv2:ncsnv2",
    "diffusers": "defenses.importers.diffusers:unet",
}
