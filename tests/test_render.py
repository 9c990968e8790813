"""Tables and descriptions of images, as text."""

from torchship.digest import Descriptor, Digest
from torchship.layers.layer import Layer
from torchship.oci.describe import ImageDescription, LayerDescription
from torchship.oci.image import Image
from torchship.platform import Platform
from torchship.render import inspected, table


def test_columns_line_up():
    """Words are flush left and numbers flush right, and no line ends in blanks."""
    shown = table(("NAME", "SIZE"), [("a", "1 kB"), ("longer", "12 MB")], frozenset({1}))
    assert shown.splitlines() == ["NAME     SIZE", "a        1 kB", "longer  12 MB"]
    assert table(("A", "B"), [("x", "")], frozenset()) == "A  B\nx"


def described(title: str) -> ImageDescription:
    """Describe an image of one layer with that title."""
    digest = Digest.of(b"layer")
    layer = Layer(digest=digest, diff_id=digest, size=192_000_000, unpacked_size=1)
    document = Descriptor(media_type="application/json", digest=digest, size=1)
    image = Image(
        platform=Platform("linux", "amd64"),
        descriptor=document,
        config=document,
        layers=(layer,),
        command=("python", "main.py"),
        environment={},
        workdir="/workspace",
        user="",
    )
    entry = LayerDescription(
        layer=layer, share=1.0, title=title, origin={"dev.torchship.layer.origin": "wheel:" * 20}
    )
    return ImageDescription(image=image, size=192_000_000, layers=(entry,))


def test_an_image_and_its_layers():
    """What it runs, as whom, its size, and a bar for each layer; long origins are cut."""
    shown = inspected([described("torch 2.13.0")])
    assert "command:   python main.py" in shown
    assert "user:      root" in shown
    assert "size:      192 MB in 1 layer" in shown
    assert "100.0%" in shown and "█" * 20 in shown
    assert max(map(len, shown.splitlines())) < 140


def test_a_terminal_obeys_nobody_else():
    """Control characters in what strangers wrote never reach the terminal."""
    shown = inspected([described("torch\x1b]0;title\x07\x1b[2J")])
    assert "\x1b" not in shown and "\x07" not in shown
