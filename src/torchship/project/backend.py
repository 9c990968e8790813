"""Resolving so that torch is of a certain build, and what is told where that cannot be.

uv calls PyTorch's own index for a build of torch its backend (``--torch-backend``).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from torchship.errors import IndexUnreachable, ResolveError
from torchship.project import builds, complaint, uv
from torchship.project.question import Question
from torchship.project.target import Target
from torchship.project.uv import Found

_BUILDS = 12  # of one release that indexes hold side by side: torch has had fewer

Answer = tuple[tuple[Found, ...], ...]
"""Each package's compatible wheels, the best first."""


def resolve(asked: Question, build: str, where: str) -> Answer:
    """Resolve so that torch is of a certain build; ``where`` names the requirements' file.

    First as the user's indexes would have it, other builds that they hold left out; then with
    the one that a folder of the user's holds; then with PyTorch's own index.
    """
    if build == builds.AUTO:
        return uv.ask(asked)
    first: ResolveError | None = None
    got: str | None = None
    version = ""
    others: tuple[str, ...] = ()
    try:
        for _ in range(_BUILDS):
            limits = tuple(f"torch!={version}" for version in others)
            answer = uv.ask(_limited(asked, *limits))
            got = of_torch(answer)
            if got in (build, None):
                return answer
            version = _version_of_torch(answer)
            if "+" not in version or version in others:
                break  # "torch!=2.13.0" would leave out every build of the release
            others += (version,)
    except ResolveError as error:
        first = error if got is None else None
    held = _versions_in(uv.folders(asked.options, asked.settings), build, asked.target)
    refusals = []
    for found in held:
        try:
            return uv.ask(_limited(asked, f"torch=={found}"))
        except ResolveError as error:  # an older one may fit, and PyTorch's index comes after
            refusals.append(error)
    elsewhere: ResolveError | None = None
    try:
        answer = uv.ask(replace(asked, arguments=(*asked.arguments, "--torch-backend", build)))
        if of_torch(answer) in (build, None):
            return answer
    except ResolveError as error:
        elsewhere = error
    if first is not None:
        raise first from None
    lack = _Lack(build=build, got=got, version=version, elsewhere=elsewhere)
    if held:
        by = str((asked.pyproject or {}).get("name", ""))
        raise lack.of_fitting(where, by, held, refusals[0]) from None
    raise lack.of_all() from None


class _Lack(Struct, frozen=True, kw_only=True):
    """Why there is no torch of a build: the indexes have it of another, ``got``, at ``version``.

    ``elsewhere`` is why PyTorch's own index gave none; None where it gave another build, too.
    """

    build: str
    got: str | None
    version: str
    elsewhere: ResolveError | None

    def of_all(self) -> ResolveError:
        """Return the error that tells what the indexes have instead, at any version."""
        build, got = self.build, self.got
        why = f": {self.elsewhere.message}" if self.elsewhere else ""
        fault = f"PyTorch's own index gives no other{why}"
        if got is not None and builds.cuda(got) and builds.cuda(build):
            return ResolveError(
                f"tool.torchship.torch is {build} ({builds.spoken(build)}), and your indexes give "
                f"torch for {builds.spoken(got)}; {fault}",
                hint=f'set torch = "{got}" in [tool.torchship], or require a version of torch that '
                f"is made for {builds.spoken(build)}",
            )
        return ResolveError(
            f"your indexes have no build of torch for {build}, and {fault}",
            hint=f"name a folder that holds torch's +{build} wheel in PIP_FIND_LINKS, or set "
            'torch = "auto" in [tool.torchship]',
        )

    def of_fitting(
        self, where: str, by: str, held: tuple[Version, ...], refusal: ResolveError
    ) -> ResolveError:
        """Return the error that tells which version is wanted, and which there are of the build.

        ``by`` is the project's name, where the requirements are its pyproject.toml's; ``refusal``
        is what was said of the newest in ``held``.
        """
        wanted = complaint.wanted("torch", refusal.message, by=by, but=f"torch=={held[0]}")
        if not wanted:
            wanted = f"is resolved to torch {self.version}"
        elsewhere = "PyTorch's own index has none that fits"
        if isinstance(self.elsewhere, IndexUnreachable):
            elsewhere = (
                f"PyTorch's own index, where it may be, gives none: {self.elsewhere.message}"
            )
        versions = ", ".join(map(str, held))
        unfit = "which does not fit" if len(held) == 1 else "none of which fits"
        return ResolveError(
            f"{where} {wanted}, and what your indexes have of torch for {self.build} is "
            f"{versions}, {unfit}; {elsewhere}",
            hint=f"change what {where} wants, or name a folder that holds the +{self.build} wheel "
            'of a version that fits in PIP_FIND_LINKS, or set torch = "auto" in [tool.torchship]',
        )


def of_torch(answer: Answer) -> str | None:
    """Return which build of torch an answer has; None without torch."""
    return builds.of_torch(wheels[0] for wheels in answer if wheels)


def _limited(asked: Question, *limits: str) -> Question:
    """Return the question with further constraints."""
    return replace(asked, constraints=(*asked.constraints, *limits))


def _versions_in(folders: tuple[Path, ...], build: str, target: Target) -> tuple[Version, ...]:
    """Return the versions of a build of torch that folders hold wheels of, the newest first."""
    tags = frozenset(target.tags)
    found = set()
    for folder in folders:
        for path in folder.glob(f"torch-*+{build}-*.whl") if folder.is_dir() else ():
            with suppress(InvalidWheelFilename):
                _, version, _, fits = parse_wheel_filename(path.name)
                if version.local == build and not tags.isdisjoint(fits):
                    found.add(version)
    return tuple(sorted(found, reverse=True))


def _version_of_torch(answer: Answer) -> str:
    found = (wheels[0] for wheels in answer if wheels)
    return next((wheel.version for wheel in found if wheel.name == "torch"), "")
