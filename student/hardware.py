"""What a student computes on, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from engine.errors import UserError
from engine.processor import Processor

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Hardware:
    device: torch.device
    precision: Precision

    def autocast(self) -> torch.autocast:
        """Weights stay float32; under bfloat16 the large multiplications do not."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def choose_hardware(device: Literal["auto", "cpu", "cuda"] = "auto", precision: Precision | Literal["auto"] = "auto") -> Hardware:
    """UserError if a GPU is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("student.device: 'cuda' was asked for, but PyTorch sees no GPU; give 'cpu' or 'auto'")
    chosen = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    if precision == "auto":
        precision = "bfloat16" if _computes_in_bfloat16(chosen) else "float32"
    return Hardware(chosen, precision)


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return Processor.here().is_fast_in_bfloat16
