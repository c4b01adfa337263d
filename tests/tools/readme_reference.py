"""Reference tables of the READMEs, made from parsers, schema, cards, catalogues and docstrings."""

from __future__ import annotations

import argparse
import ast
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BOARD_TABLES = {  # table of the schema -> its heading and how a board writes it
    "board": "Top level",
    "threat": "`[threat]`",
    "verdict": "`[verdict]`",
    "compute": "`[compute]`",
    "defense": "`[[defense]]`",
    "attack": "`[[attack]]`",
    "view": "A view: an entry of `views`",
    "protocol": "`[[protocol]]`",
    "poisoning": "Poisoning boards: top level",
    "training": "Poisoning boards: `[training]`",
    "trigger": "Poisoning boards: `[trigger]`",
    "poison": "Poisoning boards: `[[attack]]`",
    "purifier": "Poisoning boards: `[[purifier]]`",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return the text as code; nothing for nothing."""
    return f"`{text}`" if text else ""


def _doc(path: Path) -> str:
    """Return the first paragraph of a file's docstring, in one line."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split())


def _subparsers() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Return the commands: name -> (one line of help, parser)."""
    from bench.cli.main import build_parser

    action = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: (helps[name], parser) for name, parser in action.choices.items()}


def commands() -> str:
    """Return the table of commands."""
    return table(("command", ""), [(f"`purebench {n}`", text) for n, (text, _) in _subparsers().items()])


def options() -> str:
    """Return a table of arguments for each command."""
    parsers = [p for _, parser in _subparsers().values() for p in (_kinds(parser) or [parser])]
    return "\n\n".join(f"#### {p.prog}\n\n{table(('argument', ''), map(_argument, _shown(p)))}" for p in parsers)


def _kinds(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command's own subcommands."""
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [inner for action in actions for inner in action.choices.values()]


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser, without --help."""
    return [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]


def _argument(action: argparse.Action) -> tuple[str, str]:
    """Return an argument and its help."""
    if not action.option_strings:
        name = f"{action.dest}" + ("..." if action.nargs == "+" else "")
        name = f"[{name}]" if action.nargs == "?" else name
    elif action.nargs == 0:
        name = action.option_strings[-1]
    else:
        value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = value if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
        name = f"{action.option_strings[-1]} {value}" + (" ..." if action.nargs == "+" else "")
    choices = ", ".join(map(str, action.choices)) if action.choices and not action.option_strings else ""
    return code(name), (action.help or choices).replace("%%", "%").replace("<", r"\<")


def board_keys() -> str:
    """Return a table of keys for each table of a board."""
    from bench.board.schema import KEYS, REQUIRED

    parts = []
    for name, heading in _BOARD_TABLES.items():
        rows = []
        for key, entry in KEYS[name].items():
            default = code(entry.default) if entry.default[:1] in '"[{' or entry.default.isdecimal() else entry.default
            words = [meta.words for meta in getattr(entry.kind, "__metadata__", ()) if meta.words]
            kind = (words or ["a table"])[0].removesuffix(" of printable characters").removeprefix("a ")
            rows.append((code(key), entry.about, kind, "**required**" if default == REQUIRED else default))
        parts.append(f"#### {heading}\n\n{table(('key', 'sets', 'value', 'default'), rows)}")
    assert set(_BOARD_TABLES) == set(KEYS)
    return "\n\n".join(parts)


def gradient_modes() -> str:
    """Return the table of gradient modes."""
    from defenses.core.gradient_modes import MODES, NUMBERS

    rows = [(code(n), about, NUMBERS[n][0] if n in NUMBERS else "") for n, about in MODES.items()]
    return table(("gradient", "a backward pass goes", "number after a colon"), rows)


def presets() -> str:
    """Return the table of presets."""
    from bench.board.presets import find_preset, preset_names

    found = map(find_preset, preset_names())
    return table(("preset", "protocol", "source"), [(code(p.name), p.summary, p.source) for p in found])


def boards() -> str:
    """Return the table of boards that come along."""
    from bench.board.presets import find_preset

    rows = []
    for path in sorted((ROOT / "leaderboards").glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        poison = "training" in raw
        defenses = len(raw["purifier"] if poison else raw["defense"])
        attacks = len(raw.get("attack", ())) + sum(
            len(find_preset(p["preset"]).attacks()) for p in raw.get("protocol", ())
        )
        images = "poisoned training data" if poison else f"{raw.get('indices', 'all')}"
        run = f"`purebench {'poison' if poison else 'run'} {path.stem}`"
        rows.append((f"[{path.stem}]({path.name})", raw["title"], images, f"{defenses}", f"{attacks}", run))
    return table(("board", "title", "images", "defenses", "attacks", "command"), rows)


def attack_counts() -> str:
    """Return the table of suites by norms: how many of their attacks run in each."""
    from bench.attacks.catalogue import NORMS, catalogue

    counts: dict[str, Counter[str]] = {}
    for entry in catalogue():
        suite, colon, _ = entry.name.partition(":")
        row = counts.setdefault(suite if colon else "null attacks", Counter())
        row.update([*entry.norms(), "all"] if entry.norms() else [])
    names = {
        "autoattack": "AutoAttack",
        "foolbox": "Foolbox",
        "torchattacks": "torchattacks",
        "bench": "purebench's own",
    }
    rows = [(names.get(s, s), *(str(c[n]) for n in (*NORMS, "all"))) for s, c in counts.items()]
    return table(("attacks that run", *NORMS, "in all"), rows)


def families() -> str:
    """Return the defenses by family, each with a link to its paper."""
    from defenses.zoo.cards import FAMILIES, card, list_models

    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in list_models():
        found[card(name).family].append(f"[{name}]({card(name).url})" if card(name).url else name)
    return table(("family", "defenses, with their papers"), [(f, ", ".join(names)) for f, names in found.items()])


def cards() -> str:
    """Return a table of cards for each family."""
    from defenses.zoo.cards import FAMILIES, card, list_models

    parts = []
    for family in FAMILIES:
        rows = []
        for known in (card(name) for name in list_models() if card(name).family == family):
            paper = f"[{known.title}]({known.url}), {known.venue}" if known.url else known.title
            parameters = ", ".join(k for k in known.parameters if k != "classifier")
            rows.append((code(known.name), known.summary, paper, code(parameters), ", ".join(known.gradients)))
        header = ("name", "", "paper", "parameters", "gradient modes")
        parts.append(f"#### {family.capitalize()}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def recipes() -> str:
    """Return the table of training recipes."""
    from defenses.zoo.cards import card, list_models

    trained = [card(name) for name in list_models() if card(name).trainer]
    sets = list(dict.fromkeys(data for known in trained for data in known.recipes))
    rows = [(code(k.name), *(str(k.recipes.get(d, {}).get("about", "–")) for d in sets)) for k in trained]
    return table(("recipe", *sets), rows)


def datasets() -> str:
    """Return the table of published data sets and their splits."""
    from defenses.data.dataset import NAMES, dataset_info

    rows = []
    for info in map(dataset_info, NAMES):
        sizes = [f"{info.splits[s]:,}" for s in ("train", "validation", "test")]
        rows.append((code(info.name), "x".join(map(str, info.shape)), str(info.num_classes), *sizes))
    return table(("data set", "image", "classes", "train", "validation", "test"), rows)


def dataset_forms() -> str:
    """Return the forms of names of data sets."""
    from defenses.data.dataset import FORMS

    return "\n".join(f"- {code(form)}" for form in FORMS)


def importers() -> str:
    """Return the table of importers of checkpoints."""
    from defenses.importers.formats import ABOUT

    return table(("format", ""), [(code(name), about) for name, about in ABOUT.items()])


def layers(package: str) -> str:
    """Return the packages of `bench` or `defenses` from the highest layer down, with their docstrings."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found = next(c["layers"] for c in contracts if c.get("containers") == [package])
    rows = []
    for level, names in zip(range(len(found), 0, -1), found, strict=True):
        for name in names.split(" | "):
            rows.append((str(level), code(name), _doc(ROOT / package / name / "__init__.py")))
    return table(("layer", "package", ""), rows)


def benchmarks() -> str:
    """Return the table of benchmarks."""
    paths = sorted((ROOT / "tests" / "benchmarks").glob("bench_*.py"))
    return table(("benchmark", ""), [(code(p.name), _doc(p)) for p in paths])


def faults() -> str:
    """Return the number of faults in each group of the catalogue."""
    page = (ROOT / "tests" / "faults" / "CATALOGUE.md").read_text(encoding="utf-8")
    groups = [part.split("\n", 1) for part in page.split("\n## ")[1:]]
    counts = [(name, sum(line.startswith("| `") for line in body.splitlines())) for name, body in groups]
    assert f"{sum(n for _, n in counts)} cases." in page
    return table(("faults", "cases"), [*((n, str(c)) for n, c in counts), ("all", str(sum(c for _, c in counts)))])
