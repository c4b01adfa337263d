"""Commands that mend an installation, as the installer of purebench spells them."""

from __future__ import annotations

from bench.doctor.environment import Environment

_FORCE = {"pip install": "--force-reinstall", "uv pip install": "--reinstall"}


def installer(env: Environment) -> str:
    """Return "pip install" or "uv pip install" where purebench was installed so; "" where `uv sync` manages it."""
    purebench = env.distribution("purebench")
    tool = (purebench.read_text("INSTALLER") or "").strip() if purebench else ""
    if tool == "pip":
        return "pip install"
    return "uv pip install" if tool == "uv" and env.project is None else ""


def install(env: Environment, requirement: str, *, checkout: str = "") -> str:
    """Return how to get a requirement that is missing, or there in another version.

    Args:
        env: the environment.
        requirement: a name with its versions, as "scipy<2".
        checkout: what to do where `uv sync` manages the environment; "": add it to the dependencies.
    """
    if command := installer(env):
        return f'{command} "{requirement}"'
    return checkout or f'in pyproject.toml: "{requirement}" in dependencies; then uv sync'


def reinstall(env: Environment, name: str) -> str:
    """Return the command that writes the files of an installed distribution again, and no other's."""
    if command := installer(env):
        return f"{command} {_FORCE[command]} --no-deps {name}=={env.version(name)}"
    return f"uv sync --reinstall-package {name}"


def reinstall_pair(env: Environment, first: str, second: str) -> str:
    """Return the command that chooses the versions of two distributions anew, together."""
    if command := installer(env):
        return f"{command} {_FORCE[command]} {first} {second}"
    return f"uv sync --reinstall-package {first} --reinstall-package {second}"
