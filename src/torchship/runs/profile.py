"""The strict profile: variables that pin what decides about bits on processors of one kind.

They are set for the container, and cost speed. What they cannot do: make processors of other
vendors, or GPUs, give the same bits. Sources: PyTorch's notes on randomness; oneMKL's and
oneDNN's pages on conditional numerical reproducibility and instruction-set dispatch; cuBLAS,
"Results reproducibility".
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_THREADS = 8
"""Threads are part of the result: more than most machines have would slow a reproduction."""

_X86 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}


def strict(*, processors: int, architecture: str) -> Mapping[str, str]:
    """Return the variables of the strict profile; ``architecture`` is Go's name, as ``amd64``."""
    threads = str(max(1, min(processors, MOST_THREADS)))
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        **(_X86 if architecture == "amd64" else {}),
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


NAMES = frozenset(strict(processors=1, architecture="amd64"))
"""What a record may set in a reproduction: nothing but these."""
