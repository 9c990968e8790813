"""Facts of an image's torch, told as JSON by the image's own Python: never imported by torchship.

A container of its own, apart from the other facts: a broken torch takes only these with it.
"""

import json
import sys
import warnings


def gpus(torch):
    """Return the GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = []
    for place in range(torch.cuda.device_count()):
        each = torch.cuda.get_device_properties(place)
        found.append(
            {
                "name": each.name,
                "capability": "{}.{}".format(each.major, each.minor),  # noqa: UP032 (with torch)
                "memory": each.total_memory,
            }
        )
    return found


def main():
    """Tell everything as one JSON object."""
    warnings.filterwarnings("ignore")
    import torch

    hardware = {"gpus": gpus(torch)}
    capability = getattr(torch.backends.cpu, "get_cpu_capability", None)
    if capability is not None:
        hardware["instructionSet"] = capability()
    # this one line is about the processor, not about the build
    build = [
        line.strip()
        for line in torch.__config__.show().splitlines()
        if "CPU capability usage" not in line
    ]
    software = {
        "torch": str(torch.__version__),
        "torchBuild": "\n".join(build),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version() or "") or None,
    }
    try:
        import numpy

        software["numpy"] = numpy.__version__
    except ImportError:
        pass
    found = {
        "hardware": hardware,
        "software": {key: value for key, value in software.items() if value},
        "threads": torch.get_num_threads(),
        "interopThreads": torch.get_num_interop_threads(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
