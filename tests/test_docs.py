"""The documentation says what is there: commands, settings, variables, files, decisions."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from torchship.layers import bytecode, plan
from torchship.project import settings

ROOT = Path(__file__).parents[1]
CLI = ROOT / "docs" / "cli.md"
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*/*.md"))
)
# Put together here, so that this file does not name them either.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("deb", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
    )
]


def by_path(path: Path) -> str:
    """Name a page by its place."""
    return str(path.relative_to(ROOT))


def test_commands_are_documented():
    """docs/cli.md is what scripts/cli_docs.py makes of the commands as they are."""
    spec = importlib.util.spec_from_file_location("cli_docs", ROOT / "scripts" / "cli_docs.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    present = CLI.read_text()
    assert present == script.page(present), "run python scripts/cli_docs.py"


def test_settings_are_documented():
    """Every key of [tool.torchship] has a row in docs/cli.md."""
    text = CLI.read_text()
    for field in msgspec.structs.fields(settings._Settings):
        assert f"| `{field.encode_name}` |" in text
    for table in (settings._Data, settings._Metric):
        for field in msgspec.structs.fields(table):
            assert f"`{field.encode_name}`" in text


def test_layers_are_documented():
    """docs/layering.md counts the buckets, and names the wheels whose bytecode stands apart."""
    text = (ROOT / "docs" / "layering.md").read_text()
    counts = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    assert f"share {counts[plan.BUCKETS]} buckets" in text
    assert plan.APART == 8 and "A ninth has" in text
    alone = text.partition("## Bytecode")[2].partition("\n## ")[0]
    for name in set(bytecode.BROUGHT).union(bytecode.LATER, *bytecode.BROUGHT.values()):
        assert name in alone
    assert f"the {counts[len(bytecode.BROUGHT['torch'])]} that torch brings" in alone


def test_variables_are_documented():
    """Every environment variable of torchship's own that the sources read is in docs/cli.md."""
    text = CLI.read_text()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for name in re.findall(r'"(TORCHSHIP_[A-Z_]*[A-Z])"', path.read_text()):
            assert f"`{name}`" in text, f"{name} of {path}"


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_links_lead_somewhere(page):
    """A link to a file of the project names one that is there."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_decision_is_listed():
    """docs/decisions/README.md links to each note, by its own title, in order."""
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", (folder / "README.md").read_text(), re.M)
    notes = [
        (path.read_text().partition("\n")[0].removeprefix("# "), path.name)
        for path in sorted(folder.glob("[0-9]*.md"))
    ]
    assert listed == notes


def test_the_korean_readme_follows_the_english():
    """README.ko.md has the same headings, tables and code as README.md, in the same order."""
    korean = ROOT / "README.ko.md"
    if not korean.exists():
        pytest.skip("there is no README.ko.md yet")
    shapes = [_shape(path.read_text()) for path in (ROOT / "README.md", korean)]
    assert shapes[0] == shapes[1]


def _shape(text: str) -> dict[str, object]:
    code = re.findall(r"^```.*?^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", prose, re.M)],
        "rows": len(re.findall(r"^\|", prose, re.M)),
        # comments are translated
        "code": [re.sub(r"#.*|\(.*?\)", "", block).split() for block in code],
    }


def tracked() -> list[Path]:
    """Return the files of the project that are text."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_registry_is_named():
    """Where packages come from is the machine's own setting: no file names a registry's host."""
    for path in tracked():
        text = path.read_text(errors="replace")
        for host in REGISTRIES:
            assert host not in text, f"{path}: {host}"
