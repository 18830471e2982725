"""The arithmetic of forward passes: the same where episodes are sampled and where they are learnt from.

A policy whose probabilities are rounded in another way than when it sampled would look like one that has moved.
"""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def bf16(device: str, precision: Precision) -> torch.autocast:
    """Forward passes inside are in bfloat16 where ``precision`` says so; what comes of them goes on in float32."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
