"""Everything that torchship says when something is wrong.

Each message is one clear sentence with the path to the fault; `hint` says what to do next.

    TorchshipError
    ├── UsageError              the command line, or a setting in [tool.torchship]   (exit 2)
    │   └── InvalidReference    not an image reference
    ├── ProjectError            the project's files: no main.py, bad requirements, secrets
    │   ├── LockError           torchship.lock is missing, damaged, or for another platform
    │   ├── ResolveError        uv or apt-get found no set of packages
    │   │   └── IndexUnreachable    a package index does not answer, or refuses
    │   ├── MetricsError        what the program left as metrics cannot be read
    │   └── SecretFound         a file that looks like a secret would go into the image
    ├── InvalidDigest           not sha256:<64 hex digits>
    ├── FetchError              a file could not be had from any source
    │   ├── MovedOn             Debian's mirrors have replaced pinned package versions
    │   └── DataUnavailable     no source answers for a data file
    ├── HostileInput            a file from outside breaks the rules of its format
    │   ├── WheelError          a wheel that lies about its members
    │   ├── PackageError        a .deb that is not one
    │   ├── RecordError         a run record that is none, or contradicts itself
    │   ├── LayerError          a layer that would unpack outside its folder, or is damaged
    │   └── ManifestError       a manifest, config, index or image archive that is not one
    ├── PlanError               the layers do not fit into an image
    ├── StoreError              the local store: full, read-only, locked
    │   ├── BlobDamaged         a blob no longer has its digest
    │   ├── BlobMissing         a blob that should be in the store is not
    │   └── ImageNotFound       no such image in the store
    ├── RegistryError           a registry refused, failed or lied
    ├── SignatureError          a record could not be signed, or its signature does not hold
    ├── EngineError             an engine is missing or could not start the container
    └── RunError                a run failed, or its data are damaged
"""

from __future__ import annotations


class TorchshipError(Exception):
    """Base of every error that torchship raises on purpose.

    ``message`` is one sentence that names the fault; ``hint`` is what the user does next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross from the workers that derive layers: keep the hint on the way.
        return (_restore, (type(self), self.message, self.hint))


def _restore(kind: type[TorchshipError], message: str, hint: str | None) -> TorchshipError:
    return kind(message, hint=hint)


class UsageError(TorchshipError):
    """The command line or a setting is not what torchship takes."""

    exit_code = 2


class InvalidReference(UsageError):
    """The text is not an image reference."""


class ProjectError(TorchshipError):
    """The project's own files cannot be used."""


class LockError(ProjectError):
    """``torchship.lock`` is missing, damaged, or holds nothing for the platform."""


class ResolveError(ProjectError):
    """No set of packages satisfies the project's requirements."""


class IndexUnreachable(ResolveError):
    """A package index does not answer, or refuses to."""


class MetricsError(ProjectError):
    """What the program left as its metrics cannot be read: the run itself took place."""


class SecretFound(ProjectError):
    """A file of the project looks like a secret."""


class InvalidDigest(TorchshipError):
    """The text is not a digest."""


class FetchError(TorchshipError):
    """A pinned file could not be had from any source."""


class MovedOn(FetchError):
    """No mirror serves the pinned version of these Debian packages any more."""


class DataUnavailable(FetchError):
    """No source serves a data file of the project, and no local mirror holds it."""


class HostileInput(TorchshipError):
    """A file from outside breaks the rules of its format."""


class WheelError(HostileInput):
    """A wheel breaks the rules of zip or of the wheel format."""


class PackageError(HostileInput):
    """A Debian package breaks the rules of its format."""


class RecordError(HostileInput):
    """A run record breaks the rules of its format, or contradicts itself: it is never judged.

    Or what runs gave is more than a record can hold: then none is written.
    """


class LayerError(HostileInput):
    """A layer is damaged, or would write outside its folder."""


class ManifestError(HostileInput):
    """A manifest, config, index or image archive breaks the rules of its specification."""


class PlanError(TorchshipError):
    """The layers do not fit into one image."""


class StoreError(TorchshipError):
    """The local store cannot be read or written."""


class BlobDamaged(StoreError):
    """A blob in the store no longer has the digest that it is filed under."""


class BlobMissing(StoreError):
    """The store does not hold a blob that was asked for."""


class ImageNotFound(StoreError):
    """The store holds no image of that name."""


class RegistryError(TorchshipError):
    """A registry refused, failed, or answered with something else than asked for.

    ``request`` is the method and the address, without the address's query, which may hold
    signatures; ``status`` is the HTTP status, None where no answer came; ``code`` is the
    registry's own word (distribution-spec, "Error Codes"): ``MANIFEST_UNKNOWN``, ``DENIED``.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        request: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.request = request
        self.status = status
        self.code = code


class SignatureError(TorchshipError):
    """A record could not be signed; or its signature is faulty, or missing where one is needed."""


class EngineError(TorchshipError):
    """An engine is missing, or could not start the container."""


class RunError(TorchshipError):
    """A run failed, or its data are not what the image declares: nothing was measured."""
