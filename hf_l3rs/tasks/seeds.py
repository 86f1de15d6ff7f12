"""Randomness as a function of what it is for, never of rank, process count or time."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in [0, 2^63) that depends on every part, such as `(seed, "noise", generation, pair)`."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by [`derive_seed`]."""
    return torch.Generator().manual_seed(derive_seed(*parts))
