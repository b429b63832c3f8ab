"""Where networks run, and in which type: the choice on cards that these tests do not have."""

from __future__ import annotations

import pytest
import torch

from nulltta.devices import half_precision, usual_device, usual_dtype
from nulltta.rewards.catalogue import REWARDS


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_half_precision_is_bfloat16_where_the_card_has_it(
    fast: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast and not including_emulation)
    cuda = torch.device("cuda")
    assert usual_dtype(cuda) == expected
    assert REWARDS["pickscore"].default_dtype(cuda) == expected
    assert REWARDS["vqascore"].default_dtype(cuda) == torch.bfloat16  # overflows in float16
    assert REWARDS["clip"].default_dtype(cuda) == torch.float32  # small


def test_the_cpu_computes_in_float32() -> None:
    cpu = torch.device("cpu")
    assert usual_dtype(cpu) == torch.float32
    assert {known.default_dtype(cpu) for known in REWARDS.values()} == {torch.float32}
    assert half_precision(cpu) == torch.bfloat16


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_the_best_there_is(cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert usual_device().type == expected
