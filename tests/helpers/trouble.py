"""A board of attacks and models that hang, leak, die or are refused."""

from pathlib import Path

from boards import MODELS

TROUBLE = '''

def sleeps(view, x, y, **_):
    import time
    time.sleep(600)


def hangs(view, x, y, **_):
    """A hang in C code that holds the interpreter's lock."""
    import re
    re.match(r"(a+)+$", "a" * 64 + "b")


def grows(view, x, y, **_):
    import time
    held = []
    while len(held) < 20:
        held.append(torch.ones(200 << 20, dtype=torch.uint8))
        time.sleep(0.1)
    time.sleep(600)


def maps(view, x, y, **_):
    """Memory that no allocator knows of."""
    import mmap, time
    shared = mmap.mmap(-1, 3 << 30)
    for at in range(0, 3 << 30, 4096):
        shared[at] = 1
    time.sleep(600)


def leaves_python(view, x, y, **_):
    import os
    os._exit(7)


def is_killed(view, x, y, **_):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(view, x, y, *, marker, **_):
    import os
    from pathlib import Path
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(9)
    return x.clone()


def exits(view, x, y, **_):
    raise SystemExit(3)


def works(view, x, y, **_):
    return x.clone()


def asks(view, x, y, **_):
    view(x)
    return x.clone()


class Wide(torch.nn.Module):
    """Needs 100 MiB an image."""

    def __init__(self):
        super().__init__()
        self.inner = linear()
        self.eval()

    def forward(self, x):
        room = torch.empty(len(x), 100 << 20, dtype=torch.uint8)
        return self.inner(x)


class Fatal(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.eval()

    def forward(self, x):
        import os
        os._exit(5)

class Trains(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))
'''
HEAD = """
name = "trouble"
dataset = "digits"
indices = "first-10"
block = 10
threat = { norm = "Linf", eps = "1/10" }
"""
LIMIT = 12.0


def board(folder: Path, attacks: list[str], defense: str = "linear") -> Path:
    models = folder / "models.py"
    models.write_text(MODELS + TROUBLE)
    text = HEAD + f'\n[[defense]]\nname = "{models}:{defense}"\nlabel = "model"\n'
    for name in attacks:
        params = f'params = {{ marker = "{folder / "marker"}" }}\n' if name == "dies_once" else ""
        text += f'\n[[attack]]\nname = "{models}:{name}"\nlabel = "{name}"\n{params}'
    path = folder / "trouble.toml"
    path.write_text(text)
    return path
