"""What a student computes on, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from engine.errors import UserError
from engine.machine.processor import Processor

Precision = Literal["float32", "bfloat16"]

MIN_SHARE = 8
"""Rows of a batch for each of several GPUs; with fewer, adding up gradients takes longer than computing them."""


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


def count_devices(asked: int | Literal["auto"], hardware: Hardware, batch_size: int) -> int:
    """How many train together: `auto` takes all GPUs that have MIN_SHARE rows of a batch each, and one processor. UserError for more GPUs
    than there are; of a processor any number of processes share the cores.
    """
    gpus = torch.cuda.device_count() if hardware.device.type == "cuda" else 0
    if asked == "auto":
        return max(1, min(gpus, batch_size // MIN_SHARE))
    if gpus and asked > gpus:
        raise UserError(f"student.devices: {asked} were asked for, but PyTorch sees {gpus} GPU{'s' * (gpus > 1)}; give fewer, or 'auto'")
    return asked


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return Processor.here().is_fast_in_bfloat16
