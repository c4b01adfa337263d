"""A folder of packages for the doctor to look at."""

import base64
import hashlib
import importlib

from bench.doctor.examine import Environment


class Site:
    """A folder of packages, as pip would leave it."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, name, version="1.0", files=(), requires=(), installer=None):
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = []
        for file, text in dict(files).items():
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{file},sha256={digest},{len(text)}")
        (info / "RECORD").write_text("\n".join(lines))
        if installer:
            (info / "INSTALLER").write_text(f"{installer}\n")
        demands = "".join(f"Requires-Dist: {r}\n" for r in requires)
        importlib.invalidate_caches()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{demands}")

    def look(self, check, **facts):
        return list(check(Environment((str(self.folder),), **facts)))

    def one(self, check, **facts):
        (finding,) = self.look(check, **facts)
        return finding
