"""The attacks of the faults, as source of the file that their boards name; see `faults.models`."""

ATTACKS = '''

_slow = slow


def slow(view, x, y, **more):
    """The same; as the environment says, calls are written down, meet another process, take time or never come back."""
    import ctypes
    import os
    import time
    from pathlib import Path
    getenv = ctypes.CDLL(None).getenv  # past purebench, for which a variable that is read counts among the sources
    getenv.restype = ctypes.c_char_p
    if file := os.environ.get("FAULTS_CALLS"):
        with open(file, "a") as calls:
            calls.write(f"{os.getpid()} {view.stochastic} {int(more['indices'][0])}\\n")
        end = time.monotonic() + 60
        while time.monotonic() < end and len({x.split()[0] for x in Path(file).read_text().splitlines()}) < 2:
            time.sleep(0.01)
    if mark := getenv(b"FAULTS_STALL"):
        Path(os.fsdecode(mark)).touch()
        time.sleep(600)
    time.sleep(float(getenv(b"FAULTS_SECONDS") or 0))
    return _slow(view, x, y, **more)


def unpicklable(view, x, y, **_):
    """Raises an error that cannot be sent to another process."""
    class Local(Exception):
        def __init__(self, a, b):
            super().__init__(lambda: a)
    raise Local(1, 2)


def nothing(view, x, y, **_):
    return None


def array(view, x, y, **_):
    return x.numpy()


def fewer(view, x, y, **_):
    return x[:-1]


def flat(view, x, y, **_):
    return x.flatten(1)


def double(view, x, y, *, threat, **_):
    return slow(view, x, y, threat=threat, seconds=0).double()


def integers(view, x, y, **_):
    return x.round().long()


def complex_numbers(view, x, y, **_):
    return torch.complex(x, torch.ones_like(x))


def elsewhere(view, x, y, **_):
    return x.to("meta")


def sparse(view, x, y, **_):
    return x.to_sparse()


def infinite(view, x, y, **_):
    out = x.clone()
    out[3, 0, 0, 0] = float("inf")
    return out


def spoils_labels(view, x, y, **_):
    """Writes the answers of the model into the labels that it was given."""
    y.copy_(view(x).argmax(1))
    return x.clone()


def breaks_model(view, x, y, **_):
    """Turns the model into one that is wrong everywhere."""
    for p in view.parameters():
        p.data.neg_()
    return x.clone()


def trains_model(view, x, y, **_):
    """Sets modules to train mode behind the view's back, and lets parameters collect gradients."""
    for module in view.modules():
        module.training = True
    for p in view.parameters():
        p.requires_grad_(True)
    return x.clone()


def leaves_traces(view, x, y, **_):
    """Changes what the whole process shares."""
    import os
    import random
    import numpy as np
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    os.chdir("/")
    return x.clone()


def interrupts_nothing(view, x, y, **_):
    """Swallows what it is told, as some libraries do."""
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("") from None


def dies(view, x, y, **_):
    """Kills its own process."""
    import os
    import signal
    os.kill(os.getpid(), signal.SIGKILL)


def dies_once(view, x, y, **_):
    """Kills its own process the first time."""
    import os
    import signal
    mark = os.environ["DIES_ONCE"]
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return x.clone()


def fatal(view, x, y, *, threat, folder, **_):
    """A sign step; the first call on a Ray cluster ends its process, and the second its node."""
    import os
    import time
    import psutil
    for victim in ("worker", "node"):
        try:
            os.close(os.open(os.path.join(folder, victim), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        above = psutil.Process().parents()
        (psutil.Process() if victim == "worker" else next(p for p in above if p.name() == "raylet")).kill()
        time.sleep(100)
    return slow(view, x, y, threat=threat, seconds=0.0)
'''
