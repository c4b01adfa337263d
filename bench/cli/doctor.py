"""`purebench doctor`: what is wrong with the environment, and how to mend it."""

from __future__ import annotations

import argparse

from bench.cli.arguments import Declare


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("doctor", _doctor, "Look for what is wrong with the installed libraries, and say how to mend it.")
    sub.add_argument("--json", action="store_true", help="all findings as JSON")
    sub.add_argument("--deep", action="store_true", help="import every library too, each in a process of its own")


def _doctor(arguments: argparse.Namespace) -> int:
    from bench.doctor.examine import Environment, examine
    from bench.doctor.imports import imports

    findings = examine(Environment.here())
    if arguments.deep:
        findings += imports()
    if arguments.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(f) for f in findings], indent=1))
    else:
        for f in findings:
            print(f"{f.status:<6}  {f.check}: {f.evidence}")
            if f.status != "ok":
                print(f"        breaks: {f.breaks}\n        remedy: {f.remedy}")
    return 2 if any(f.status == "broken" for f in findings) else 0
