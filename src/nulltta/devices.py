"""Where networks run, and in which type, where the caller does not say."""

from __future__ import annotations

import torch


def usual_device() -> torch.device:
    """Return the GPU if there is one: CUDA, or Apple's; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usual_dtype(device: torch.device) -> torch.dtype:
    """Return float32 on the CPU, bfloat16 on a GPU that computes in it, and float16 on one that emulates it."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    return half_precision(device)


def half_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies matrices in it, else float16."""
    try:
        one = torch.ones(1, 1, dtype=torch.bfloat16, device=device)
        torch.mm(one, one)
    except (RuntimeError, TypeError, NotImplementedError):
        return torch.float16
    return torch.bfloat16
