"""Digests of the tensors in files, told as JSON by the image's own Python: never imported.

Run as ``python -c SOURCE PATH...``. Two archives of equal tensors may differ in their bytes:
here the contents count, and their names, types and shapes. A file that cannot be read so is left
out; torch reads pickles with ``weights_only=True``, which runs no code of theirs.
"""

import ctypes
import hashlib
import json
import os
import sys
import warnings


def safetensors(path):
    """Return the digest of a safetensors file: its header's tensors by name, then their bytes."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(100 << 20, os.path.getsize(path)):
            raise ValueError("no header")
        header = json.loads(file.read(length))
        begin = 8 + length
        whole = hashlib.sha256()
        for name in sorted(header):
            if name == "__metadata__":
                continue
            tensor = header[name]
            start, end = tensor["data_offsets"]
            if not 0 <= start <= end <= os.path.getsize(path) - begin:
                raise ValueError("offsets beyond the file")
            file.seek(begin + start)
            content, left = hashlib.sha256(), end - start
            while left:
                piece = file.read(min(left, 1 << 20))
                if not piece:
                    raise ValueError("cut off")
                content.update(piece)
                left -= len(piece)
            told = [name, tensor["dtype"], tensor["shape"], content.hexdigest()]
            whole.update(json.dumps(told).encode() + b"\n")
    return whole


def archive(path):
    """Return the digest of what `torch.save` wrote."""
    import torch

    whole = hashlib.sha256()
    feed(whole, torch.load(path, map_location="cpu", weights_only=True), torch, set())
    return whole


def feed(whole, value, torch, above):
    """Feed a value: its kind, its size, then what is in it."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().contiguous()
        if plain.layout != torch.strided or plain.is_quantized:
            raise ValueError("sparse and quantised tensors have no plain bytes")
        told = ["tensor", str(plain.dtype), list(plain.shape)]
        whole.update(json.dumps(told).encode() + b"\n")
        size = plain.numel() * plain.element_size()
        for begin in range(0, size, 1 << 24):
            length = min(size - begin, 1 << 24)
            # not by way of NumPy, which not every image has
            whole.update(ctypes.string_at(plain.data_ptr() + begin, length))
        return
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if id(value) in above:
            raise ValueError("a value that holds itself")
        inside = above | {id(value)}
        whole.update(json.dumps([type(value).__name__, len(value)]).encode() + b"\n")
        if isinstance(value, dict):
            for key, item in value.items():
                feed(whole, key, torch, inside)
                feed(whole, item, torch, inside)
        elif isinstance(value, (set, frozenset)):
            for item in sorted(value, key=repr):
                feed(whole, item, torch, inside)
        else:
            for item in value:
                feed(whole, item, torch, inside)
        return
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        said = value.hex() if isinstance(value, (float, bytes)) else repr(value)
        whole.update(json.dumps([type(value).__name__, said]).encode() + b"\n")
        return
    if isinstance(value, (torch.dtype, torch.device, torch.Size)):
        whole.update(repr(value).encode() + b"\n")
        return
    raise ValueError("no plain value: " + type(value).__name__)


def main():
    """Tell the digests, by path."""
    warnings.filterwarnings("ignore")
    found = {}
    for path in sys.argv[1:]:
        try:
            read = safetensors if path.endswith(".safetensors") else archive
            found[path] = "sha256:" + read(path).hexdigest()
        except Exception as error:  # noqa: BLE001 (a program's file may be damaged in any way)
            sys.stderr.write(path + ": " + str(error) + "\n")
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
