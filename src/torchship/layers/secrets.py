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

from msgspec import Struct

from torchship.errors import SecretFound

SIZE = 1 << 20
"""Bytes: only smaller files are read for secrets; keys and tokens are in small ones."""

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

_PEM = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:\\n|\s|[A-Za-z-]+: [^\n]*\n)+(?:[A-Za-z0-9+/=]{32,}|[A-Za-z0-9+/=\s]{16,}-----END )"
)
_PEM_BEGIN = re.compile(
    rb"(?m)^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/]"
)
_WANDB = re.compile(
    rb"wandb\.login\([^)]*?[\"']([0-9a-f]{40})[\"']"
    rb"|WANDB_API_KEY[\"'\]]*\s*[=:,]\s*[\"']?([0-9a-f]{40})\b"
)
_TOKENS = (
    (re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"), "an AWS access key"),
    (re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"), "a GitHub token"),
    (re.compile(rb"\bgithub_pat_[A-Za-z0-9_]{60,}\b"), "a GitHub token"),
    (re.compile(rb"\bglpat-[A-Za-z0-9_-]{20,}"), "a GitLab token"),
    (re.compile(rb"\bhf_[A-Za-z0-9]{34,}\b"), "a Hugging Face token"),
    (re.compile(rb"\bsk-(?:proj-|ant-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}"), "an API key"),
    (re.compile(rb"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"), "a Slack token"),
    (re.compile(rb"\bpypi-AgE[A-Za-z0-9_-]{40,}"), "a package index token"),
    (re.compile(rb"\bAIza[A-Za-z0-9_-]{35}\b"), "a Google API key"),
    (re.compile(rb"\bnpm_[A-Za-z0-9]{36}\b"), "an npm token"),
    (re.compile(rb"_authToken\s*=\s*(?!\$\{)\S{16,}"), "an npm token"),
)
_STARTS = re.compile(
    rb"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox|pypi-AgE|AIza|npm_|_authToken"
    rb"|PRIVATE KEY|wandb\.login|WANDB_API_KEY"
)
_LOGIN = re.compile(rb"(?m)^\s*(?:-\s+)?(?:token|client-key-data|password):\s*\S")
_DISTINCT = 10  # characters: a placeholder such as hf_xxxxxxxx has fewer


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
    if not data or b"\0" in data[:8192]:
        return None
    if _STARTS.search(data):
        if _PEM.search(data) or (path.endswith((".pem", ".key")) and _PEM_BEGIN.search(data)):
            return "a private key"
        if any(_is_random(a or b) for a, b in _WANDB.findall(data)):
            return "a Weights & Biases key"
        for pattern, reason in _TOKENS:
            if any(_is_random(found) for found in pattern.findall(data)):
                return reason
    name = path.rpartition("/")[2]
    if name == "kaggle.json" and re.search(rb'"key"\s*:\s*"[0-9A-Za-z_]{20,}"', data):
        return "a Kaggle key"
    if path.endswith(".json"):
        return _in_json(data)
    # Kubernetes' kubeconfig: what logs in stands under "users".
    if (name == "kubeconfig" or path.endswith(".kube/config")) and _LOGIN.search(data):
        return "logins for a Kubernetes cluster"
    return None


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
