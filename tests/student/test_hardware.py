from __future__ import annotations

import pytest
import torch

from engine.errors import UserError
from engine.machine.processor import Processor
from student.hardware import choose_hardware


@pytest.mark.parametrize(("flags", "precision"), [({"avx2", "avx512f"}, "float32"), ({"avx512_bf16"}, "bfloat16")])
def test_auto_takes_what_the_processor_computes_in(flags: set[str], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processor, "here", lambda: Processor("AuthenticAMD", frozenset(flags)))
    assert choose_hardware("cpu", "auto").precision == precision
    assert choose_hardware("cpu", "float32").precision == "float32"
    assert choose_hardware("cpu", "bfloat16").precision == "bfloat16"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_hardware().device == torch.device("cpu")
    with pytest.raises(UserError, match="PyTorch sees no GPU"):
        choose_hardware("cuda")


def test_autocast_computes_in_the_precision_chosen() -> None:
    left, right = torch.ones(2, 2), torch.ones(2, 2)
    with choose_hardware("cpu", "float32").autocast():
        assert (left @ right).dtype == torch.float32
    with choose_hardware("cpu", "bfloat16").autocast():
        assert (left @ right).dtype == torch.bfloat16
