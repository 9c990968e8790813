"""Facts of a container, told as JSON by the image's own Python: never imported by torchship.

Run as ``python -c SOURCE PATH...``; the paths are files to hash. Standard library alone, for
every Python from 3.8 on. What cannot be learnt is left out.
"""

import hashlib
import json
import os
import platform
import re
import sys

FLAGS = re.compile(
    r"avx.*|sse4_.*|ssse3|fma.?|f16c|bmi.|amx.*|asimd.*|sve.*|bf16|i8mm|vaes|vpclmulqdq|fphp"
)
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "DNNL_MAX_CPU_ISA",
    "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_CBWR", "MKL_DYNAMIC",
    "MKL_NUM_THREADS", "MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE", "OMP_DYNAMIC",
    "OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", "OMP_SCHEDULE", "OMP_WAIT_POLICY",
    "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip


def read(path):
    """Return a small file's text; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def hardware():
    """Return what /proc and the kernel say of the machine."""
    cpu = {}
    for line in read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    found = {"machine": platform.machine()}
    vendor = cpu.get("vendor_id") or cpu.get("CPU implementer")
    model = cpu.get("model name") or cpu.get("CPU part")
    if vendor:
        found["vendor"] = vendor
    if model:
        found["cpu"] = model
    words = (cpu.get("flags") or cpu.get("Features") or "").split()
    found["flags"] = sorted({word for word in words if FLAGS.fullmatch(word)})
    found["processors"] = len(os.sched_getaffinity(0))
    match = re.search(r"MemTotal:\s*(\d+) kB", read("/proc/meminfo"))
    if match:
        found["memory"] = int(match.group(1)) * 1024
    match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", read("/proc/driver/nvidia/version"))
    if match:
        found["driver"] = match.group(1)
    return found


def software():
    """Return the versions of what runs."""
    name, version = platform.libc_ver()
    found = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "libc": (name + " " + version).strip(),
        "packages": packages(),
    }
    return {key: value for key, value in found.items() if value}


def packages():
    """Return the installed distributions by name."""
    try:
        from importlib.metadata import distributions
    except ImportError:
        return {}
    found = {}
    for each in distributions():
        try:
            name, version = each.metadata["Name"], each.version
        except (AttributeError, KeyError, OSError, TypeError, ValueError):
            continue  # no METADATA, or none that can be read: what that is depends on the Python
        if name:
            found[str(name).lower()] = str(version)
    return dict(sorted(found.items())[:2000])


def digest(path):
    """Return sha256 and size of a file; None where it cannot be read."""
    running, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                running.update(piece)
                size += len(piece)
    except OSError:
        return None
    return {"digest": "sha256:" + running.hexdigest(), "size": size}


def main():
    """Tell everything as one JSON object."""
    found = {
        "hardware": hardware(),
        "software": software(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "data": {path: digest(path) for path in sys.argv[1:]},
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
