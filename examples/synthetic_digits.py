"""Draw handwritten-looking digits into the four files that MNIST's readers expect.

For machines that cannot reach MNIST: the same format (28 x 28, gzipped IDX), none of the data.
Nothing that is measured on these images says anything about MNIST.

    python synthetic_digits.py DIR [--train 6000] [--test 1000] [--seed 1]

Each digit is a few strokes in the unit square; each image shifts, turns, shears, scales and
bends them, draws them with a pen of its own width, and adds noise. The same seed gives the
same images on every machine: only arithmetic that IEEE 754 defines exactly reaches a pixel.
(The compressed bytes are those of the machine's own zlib.)
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import math
import random
import struct
from pathlib import Path

SIDE = 28
FILES = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")

# Strokes as corner points, x to the right and y down, both from 0 to 1.
Point = tuple[float, float]
Stroke = tuple[Point, ...]


def arc(cx: float, cy: float, rx: float, ry: float, start: int, end: int) -> Stroke:
    """Return an ellipse's arc as points; angles in degrees, clockwise from the right."""
    steps = max(2, abs(end - start) // 30)
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    # rounded: the last bit of sin and cos differs between C libraries
    return tuple((round(cx + rx * math.cos(a), 6), round(cy + ry * math.sin(a), 6)) for a in angles)


# Some digits are written in more ways than one; each image picks one.
DIGITS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    ((arc(0.5, 0.5, 0.27, 0.42, 0, 360),),),
    (
        (((0.5, 0.08), (0.5, 0.92)),),
        (((0.33, 0.27), (0.54, 0.08), (0.54, 0.92)), ((0.34, 0.92), (0.74, 0.92))),
    ),
    (((*arc(0.5, 0.32, 0.26, 0.24, 190, 390), (0.24, 0.92), (0.8, 0.92)),),),
    ((arc(0.46, 0.29, 0.26, 0.21, 200, 450) + arc(0.46, 0.71, 0.29, 0.21, 270, 520),),),
    (
        (((0.62, 0.92), (0.62, 0.08), (0.2, 0.64), (0.84, 0.64)),),
        (((0.28, 0.1), (0.24, 0.52), (0.74, 0.5)), ((0.74, 0.1), (0.7, 0.92))),
    ),
    ((((0.76, 0.1), (0.32, 0.1), (0.28, 0.46), *arc(0.48, 0.67, 0.28, 0.25, 230, 510)),),),
    ((arc(0.75, 0.6, 0.5, 0.54, 280, 190) + arc(0.5, 0.69, 0.25, 0.23, 180, 540),),),
    (
        (((0.22, 0.12), (0.78, 0.12), (0.42, 0.92)),),
        (((0.22, 0.12), (0.78, 0.12), (0.42, 0.92)), ((0.36, 0.5), (0.74, 0.5))),
    ),
    ((arc(0.5, 0.29, 0.21, 0.2, 90, 450), arc(0.5, 0.71, 0.26, 0.22, 270, 630)),),
    (((*arc(0.48, 0.32, 0.24, 0.23, 0, 360), (0.7, 0.5), (0.62, 0.92)),),),
)


def place(strokes: tuple[Stroke, ...], chance: random.Random) -> list[list[Point]]:
    """Return the strokes in pixels, after a random affine map and a small bend."""
    turn, shear = chance.uniform(-0.22, 0.22), chance.uniform(-0.25, 0.2)
    width, height = chance.uniform(15, 21), chance.uniform(18, 22)
    left, top = SIDE / 2 + chance.uniform(-2, 2), SIDE / 2 + chance.uniform(-2, 2)
    wobble = 0.035
    placed = []
    for stroke in strokes:
        points = []
        for x, y in stroke:
            u = x - 0.5 + chance.uniform(-wobble, wobble)
            v = y - 0.5 + chance.uniform(-wobble, wobble)
            # for such small angles the angle itself stands for its sine
            points.append((left + width * (u - (shear + turn) * v), top + height * (v + turn * u)))
        placed.append(points)
    return placed


def draw(digit: int, chance: random.Random) -> bytes:
    """Return one image: SIDE * SIDE bytes, row by row, 0 is paper and 255 is ink."""
    pen = chance.uniform(0.8, 1.6)  # half the width of the line, in pixels
    nearest = [9.0] * (SIDE * SIDE)  # squared distance from each pixel to the line
    for stroke in place(chance.choice(DIGITS[digit]), chance):
        for (ax, ay), (bx, by) in itertools.pairwise(stroke):
            dx, dy = bx - ax, by - ay
            length = dx * dx + dy * dy or 1.0
            # only pixels within 3 of the segment can be inked
            for row in range(max(0, int(min(ay, by)) - 3), min(SIDE, int(max(ay, by)) + 4)):
                for column in range(max(0, int(min(ax, bx)) - 3), min(SIDE, int(max(ax, bx)) + 4)):
                    px, py = column - ax, row - ay
                    along = min(1.0, max(0.0, (px * dx + py * dy) / length))
                    ex, ey = px - along * dx, py - along * dy
                    distance = ex * ex + ey * ey
                    if distance < nearest[row * SIDE + column]:
                        nearest[row * SIDE + column] = distance
    ink = chance.uniform(200, 255)
    pixels = bytearray(SIDE * SIDE)
    for i, squared in enumerate(nearest):
        if squared < 9.0:
            # full ink inside the pen, fading over one pixel at its edge, a little uneven
            strength = min(1.0, max(0.0, pen + 0.5 - math.sqrt(squared)))
            pixels[i] = min(255, int(strength * (ink + chance.uniform(-25, 25)) + 0.5))
    return bytes(pixels)


def write(folder: Path, part: str, count: int, seed: int) -> None:
    """Write one part, ``train`` or ``t10k``: its images and its labels."""
    chance = random.Random(f"{part} {seed}")
    labels = bytes(chance.randrange(10) for _ in range(count))
    images = b"".join(draw(label, chance) for label in labels)
    contents = (
        struct.pack(">4I", 0x0803, count, SIDE, SIDE) + images,
        struct.pack(">2I", 0x0801, count) + labels,
    )
    for name, content in zip(FILES, contents, strict=True):
        (folder / f"{part}-{name}").write_bytes(gzip.compress(content, 6, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw synthetic digits in MNIST's file format.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the four files go")
    parser.add_argument("--train", type=int, default=6000, metavar="N", help="training images")
    parser.add_argument("--test", type=int, default=1000, metavar="N", help="test images")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="random seed")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder, "train", args.train, args.seed)
    write(args.folder, "t10k", args.test, args.seed)
    print(f"{args.train} training and {args.test} test images, synthetic, in {args.folder}")


if __name__ == "__main__":
    main()
