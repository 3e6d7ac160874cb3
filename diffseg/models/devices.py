"""Where models compute."""

import torch


def best_device() -> str:
    """The accelerator of this machine, whatever its kind ("cuda", "mps", "xpu", ...), else "cpu"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def half_precision(device: str) -> torch.autocast:
    """A context in which products and convolutions are computed in bfloat16, where the device is quick with it.

    A CPU without AVX-512 is a hundred times slower with bfloat16 than with float32, in which it stays.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, kind != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512")


def device_count(device: str) -> int:
    """How many devices of a kind this machine has; one CPU."""
    return torch.accelerator.device_count() if device == best_device() != "cpu" else 1


def share_device(device: str, worker: int, count: int) -> str:
    """The one of `count` devices of a kind that a worker takes, in turn.

    A device that comes with a number, such as "cuda:1", is taken by all.
    """
    return f"{device}:{worker % count}" if count > 1 and ":" not in device else device
