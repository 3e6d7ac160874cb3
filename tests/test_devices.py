"""The choice of a device, and how workers share several."""

import pytest
import torch

from diffseg.models.devices import best_device, device_count, half_precision, share_device


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_any_accelerator_is_chosen(kind, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    assert best_device() == kind
    assert (device_count(kind), device_count("cpu")) == (3, 1)


def test_without_an_accelerator_the_cpu_computes(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert best_device() == "cpu" and device_count("cpu") == 1


def test_a_model_can_be_moved_to_it():
    assert torch.zeros(1, device=best_device()).device.type == best_device()


@pytest.mark.parametrize(("capability", "dtype"), [("AVX2", torch.float32), ("AVX512", torch.bfloat16)])
def test_a_cpu_computes_in_half_precision_only_where_that_is_fast(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with half_precision("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
        ("cuda", 1, ["cuda"] * 5),
        ("cuda:1", 3, ["cuda:1"] * 5),
        ("cpu", 1, ["cpu"] * 5),
    ],
)
def test_workers_take_turns(device, count, expected):
    assert [share_device(device, worker, count) for worker in range(5)] == expected
