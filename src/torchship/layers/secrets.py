"""Files that look like secrets: an image is published, and what is in a layer stays in it.

By name where the name says it all, by content where only that tells. Tokens are matched by
the prefixes that their issuers gave them for this purpose, with their full length, so that a
mention of one (``hf_...`` in a README) is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache

from msgspec import Struct

from torchship.errors import SecretFound

SIZE = 1 << 20
"""Bytes: smaller files are looked through whole, for what only their format tells, too."""

MOST = 16 << 20
"""Bytes: so much of a larger text is looked through. Notebooks with their pictures are smaller."""

_LONGEST = 4096  # bytes of a piece that are looked at again with the next: none is longer

_NAMES = (
    # (pattern of the file's name, what it is)
    (".env", "environment files hold credentials"),
    (".env.*", "environment files hold credentials"),
    (".netrc", "logins for servers"),
    ("_netrc", "logins for servers"),
    (".pypirc", "logins for package indexes"),
    (".git-credentials", "logins for git servers"),
    (".pgpass", "passwords of databases"),
    (".htpasswd", "passwords of users"),
    ("id_rsa", "an SSH key"),
    ("id_dsa", "an SSH key"),
    ("id_ecdsa", "an SSH key"),
    ("id_ed25519", "an SSH key"),
    ("id_ecdsa_sk", "an SSH key"),
    ("id_ed25519_sk", "an SSH key"),
    ("*.kdbx", "a store of passwords"),
    ("application_default_credentials.json", "Google Cloud credentials"),
)
_HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults")
_PATHS = (
    (".aws/credentials", "AWS credentials"),
    (".kaggle/kaggle.json", "a Kaggle key"),
    (".config/gcloud/credentials.db", "Google Cloud credentials"),
    (".cache/huggingface/token", "a Hugging Face token"),
    (".huggingface/token", "a Hugging Face token"),
)

# Compiled when the first is met: most projects hold nothing that begins like one.
_PEM = (
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:\\n|\s|[A-Za-z-]+: [^\n]*\n)+(?:[A-Za-z0-9+/=]{32,}|[A-Za-z0-9+/=\s]{16,}-----END )"
)
_PEM_BEGIN = rb"(?m)^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/]"
_TOKENS = (
    (rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b", "an AWS access key"),
    (rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b", "a GitHub token"),
    (rb"\bgithub_pat_[A-Za-z0-9_]{60,}\b", "a GitHub token"),
    (rb"\bglpat-[A-Za-z0-9_-]{20,}", "a GitLab token"),
    (rb"\bhf_[A-Za-z0-9]{34,}\b", "a Hugging Face token"),
    (rb"\bsk-(?:proj-|ant-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}", "an API key"),
    (rb"\bxox[abeoprs]-[A-Za-z0-9-]{20,}", "a Slack token"),
    (rb"\bpypi-AgE[A-Za-z0-9_-]{40,}", "a package index token"),
    (rb"\bAIza[A-Za-z0-9_-]{35}\b", "a Google API key"),
    (rb"\bnpm_[A-Za-z0-9]{36}\b", "an npm token"),
    (rb"_authToken\s*=\s*(?!\$\{)\S{16,}", "an npm token"),
    (rb"wandb\.login\([^)]*?[\"']([0-9a-f]{40})[\"']", "a Weights & Biases key"),
    (rb"WANDB_API_KEY[\"'\]]*\s*[=:,]\s*[\"']?([0-9a-f]{40})\b", "a Weights & Biases key"),
)
_STARTS = re.compile(
    rb"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox|pypi-AgE|AIza|npm_|_authToken"
    rb"|PRIVATE KEY|wandb\.login|WANDB_API_KEY"
)
_LOGIN = rb"(?m)^\s*(?:-\s+)?(?:token|client-key-data|password):\s*\S"
_DISTINCT = 10  # characters: a placeholder such as hf_xxxxxxxx has fewer

# RFC 3986, section 3.2: what stands before a host's @ in an address.
_ADDRESS = (
    rb"://(?P<user>[\w.%+~=${}-]{0,200}):(?P<password>[^\s/@\"'`<>()\[\]\\?#]{1,400})"
    rb"@(?P<host>[A-Za-z0-9][\w.-]*)"
)
_TEMPLATE = rb"^\$|[{}]|%(?![0-9A-Fa-f]{2})"  # filled in when it is used: ${VAR}, %s, {{ var }}
_PLACEHOLDERS = (
    rb"(?i)pass(?:w(?:or)?d|phrase|code)?|p[a4][s5$]{2}w[o0]rd|pswd|pwd|passwort|contrase.a"
    rb"|secret|s3cre?t|token|api|key|access|auth|credentials?|login|user|name"
    rb"|my|your|the|some|super|very|strong|here|goes|put|this|is|not|real|change|replace|me|it|an?"
    rb"|example|sample|dummy|fake|mock|test|demo|default|value|private|hidden|redacted|masked"
    rb"|removed|guest|anonymous|admin|root|postgres|mysql|foo|bar|baz|quu?x|abc|xyz|hunter|x+|\W|_"
)
_NOWHERE = (
    rb"(?i)localhost|127\..*|0\.0\.0\.0|(?:my|your|the)?-?(?:host|server)(?:name)?|sha\d*"
    rb"|(?:.*\.)?(?:example(?:\.[a-z]+)?|test|invalid|localhost)"
)
_SHORT = 4  # characters: a password of fewer keeps nobody out


class Finding(Struct, frozen=True, kw_only=True):
    """A file, by its path in the project, and why it looks like a secret."""

    path: str
    reason: str


def by_name(path: str) -> str | None:
    """Return why a path alone says that the file is a secret, None if it does not."""
    name = path.rpartition("/")[2]
    if name in _HARMLESS:
        return None
    for pattern, reason in _NAMES:
        if fnmatchcase(name, pattern):
            return reason
    for ending, reason in _PATHS:
        if path == ending or path.endswith(f"/{ending}"):
            return reason
    return None


def by_content(path: str, data: bytes) -> str | None:
    """Return why a small file's content says that it is a secret, None if it does not."""
    if _is_binary(data):
        return None
    reason = _in_text(path, data)
    if reason is not None:
        return reason
    name = path.rpartition("/")[2]
    if name == "kaggle.json" and re.search(rb'"key"\s*:\s*"[0-9A-Za-z_]{20,}"', data):
        return "a Kaggle key"
    if path.endswith(".json"):
        return _in_json(data)
    # Kubernetes' kubeconfig: what logs in stands under "users".
    if (name == "kubeconfig" or path.endswith(".kube/config")) and re.search(_LOGIN, data):
        return "logins for a Kubernetes cluster"
    return None


class Search:
    """A search for tokens and keys in a larger file, such as a notebook, piece by piece.

    ``reason`` is why it looks like a secret, None while it does not. No more than the first
    `MOST` bytes are looked at.
    """

    def __init__(self, path: str) -> None:
        self.reason: str | None = None
        self._path = path
        self._left = MOST
        self._end = b""

    def feed(self, piece: bytes) -> None:
        """Look at the file's next bytes."""
        if self._left <= 0 or self.reason is not None:
            return
        if self._left == MOST and _is_binary(piece):
            self._left = 0
            return
        self._left -= len(piece)
        self.reason = _in_text(self._path, self._end + piece)
        self._end = piece[-_LONGEST:]


def _is_binary(data: bytes) -> bool:
    return b"\0" in data[:8192]


def _in_text(path: str, data: bytes) -> str | None:
    """Return why a text looks like a secret: one pass, whatever it is looked through for."""
    for start in _STARTS.finditer(data):
        at = start.start()
        if start[0] == b"PRIVATE KEY":
            at = data.rfind(b"-----BEGIN ", max(0, at - 64), at)
            if at >= 0 and _begins_key(path, data, at):
                return "a private key"
            continue
        for pattern, reason in _tokens():
            token = pattern.match(data, at)
            if token is not None and _is_random(token[token.lastindex or 0]):
                return reason
    # Nothing but a text that has both can hold an address with a password.
    if b"://" in data and b"@" in data:
        for found in re.finditer(_ADDRESS, data):
            if _opens(found["user"], found["password"], found["host"]):
                return "a password in an address"
    return None


def _begins_key(path: str, data: bytes, at: int) -> bool:
    if re.compile(_PEM).match(data, at):
        return True
    return path.endswith((".pem", ".key")) and bool(re.compile(_PEM_BEGIN).match(data, at))


@cache
def _tokens() -> tuple[tuple[re.Pattern[bytes], str], ...]:
    return tuple((re.compile(pattern), reason) for pattern, reason in _TOKENS)


def _opens(user: bytes, password: bytes, host: bytes) -> bool:
    """Tell whether an address's password is one, and not what documentation has in its place."""
    if len(password) < _SHORT or password == user or re.fullmatch(_NOWHERE, host):
        return False
    if re.search(_TEMPLATE, password):
        return False
    rest = re.sub(_PLACEHOLDERS, b"", password)
    # password123 and 123456 are what people write where they mean none.
    return not (rest in b"1234567890" or (rest.isdigit() and len(rest) <= _SHORT))


def _is_random(token: bytes) -> bool:
    # AWS's own example key, which every tutorial repeats, ends so.
    if b"EXAMPLE" in token.upper():
        return False
    _, _, tail = token.partition(b"=") if b"=" in token else (b"", b"", token)
    letters = re.sub(rb"^[A-Za-z]+[_-]", b"", tail)
    return len(set(letters)) >= _DISTINCT and any(48 <= char <= 57 for char in letters)


def _in_json(data: bytes) -> str | None:
    if not re.search(rb'"(?:auths|private_key|refresh_token)"', data):
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    auths = document.get("auths")
    if isinstance(auths, dict) and any(
        isinstance(login, dict) and (login.get("auth") or login.get("identitytoken"))
        for login in auths.values()
    ):
        return "logins for container registries"
    if document.get("type") == "authorized_user" and document.get("refresh_token"):
        return "Google Cloud credentials"
    return None


def refuse(findings: Iterable[Finding]) -> None:
    """Raise `SecretFound` that names every finding, or do nothing where there is none."""
    found = sorted(findings, key=lambda finding: finding.path)
    if not found:
        return
    listed = "; ".join(f"{finding.path} ({finding.reason})" for finding in found)
    count = "a file that looks" if len(found) == 1 else f"{len(found)} files that look"
    allowed = ", ".join(f'"{finding.path}"' for finding in found)
    raise SecretFound(
        f"{count} like secrets would go into the image: {listed}",
        hint=f"add them to .dockerignore, or, where they are none, set allow = [{allowed}] "
        "in [tool.torchship]",
    )
