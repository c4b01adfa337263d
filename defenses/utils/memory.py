"""How much memory a process can still get, on the CPU and on accelerators."""

from __future__ import annotations

import torch


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still get on a device; the smaller of what there is and what it is allowed."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    from bench.limits import available_memory

    return min(available_memory(), _allowed())


def _allowed() -> float:
    """What the limit of the process on its data leaves."""
    try:
        import resource
    except ImportError:  # Windows has none
        return float("inf")
    import psutil  # type: ignore[import-untyped]

    most = resource.getrlimit(resource.RLIMIT_DATA)[0]
    used = getattr(psutil.Process().memory_info(), "data", 0)
    return float("inf") if most < 0 else float(max(0, most - used))
