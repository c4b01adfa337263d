"""A PEP 517 build backend that repacks the installed torchattacks without its stray `robustbench` copy."""

import base64
import hashlib
import importlib.metadata
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def _record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def build_wheel(wheel_directory: str, *_: object, **__: object) -> str:
    """Write the wheel into `wheel_directory` and return its file name (PEP 517)."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    upstream = importlib.metadata.distribution(name)
    if upstream.version != version or not upstream.files:
        raise RuntimeError(f"the build needs {name} {version}, found {upstream.version}")
    files = {str(f): f.locate().read_bytes() for f in upstream.files if f.parts[0] == name and f.suffix == ".py"}
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {d}\n" for d in project["dependencies"])
    licence = upstream.read_text("LICENSE") or ""
    files[f"{info}/LICENSE"] = licence.encode()
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: purebench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [_record_line(n, d) for n, d in files.items()] + [f"{info}/RECORD,,"]
    files[f"{info}/RECORD"] = "\n".join(record).encode()
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return wheel
