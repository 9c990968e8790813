"""Accounts, kept where Docker keeps them: ``~/.docker/config.json`` and credential helpers.

Sources: Docker's documentation of ``config.json`` and the docker-credential-helpers protocol
(``get``, ``store``, ``erase``: JSON or an address on standard input, never an argument).
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from torchship.errors import RegistryError, UsageError
from torchship.oci.registry.session import Session
from torchship.oci.registry.token import Authorizer, Credentials
from torchship.oci.registry.transport import Transport

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_IDENTITY = "<token>"  # the user name under which helpers file an identity token
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60

_Config = dict[str, Any]
_Verb = Literal["get", "store", "erase"]


def config_path() -> Path:
    """Return Docker's configuration file of this user (``DOCKER_CONFIG`` names its folder)."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"


def credentials(host: str) -> Credentials | None:
    """Return the account that this user has at ``host``; None where there is none.

    Raises `RegistryError` where the file or a helper that it names cannot be used.
    """
    config = _read_config()
    helper = _helper(config, host)
    if helper is not None:
        found = _from_helper(helper, host)
        if found is not None:
            return found
    return _from_file(config, host)


def login(host: str, username: str, password: str) -> None:
    """Check an account with the registry itself, then keep it; replace what was kept before.

    Raises `RegistryError` where the registry refuses it; nothing is kept then.
    """
    if not username or not password:
        raise UsageError(
            "a login needs a user name and a password",
            hint="give --username NAME, and the password to --password-stdin",
        )
    account = Credentials(username=username, password=password)
    transport = Transport(host)
    session = Session(transport, Authorizer(transport, lambda: account))
    try:
        session.ask("GET", "/v2/", (), expect={200})
    except RegistryError as fault:
        # Without a request it is no answer to the account: the way to log in is unknown
        if fault.status != 401 or fault.request is None:
            raise
        raise _wrong(host, fault) from None
    _keep(host, account)


def _wrong(host: str, fault: RegistryError) -> RegistryError:
    hint = "check both, and that the password is the one for registries: many take tokens only"
    if host in _HUB_NAMES:
        hint = "Docker Hub takes a personal access token as the password: hub.docker.com/settings"
    return RegistryError(
        f"wrong user name or password for {host}",
        hint=hint,
        request=fault.request,
        status=fault.status,
        code=fault.code,
    )


def logout(host: str) -> bool:
    """Forget the account at ``host``, in helper and file; return whether there was one."""
    config = _read_config()
    helper = _helper(config, host)
    known = _from_file(config, host) is not None
    if helper is not None and _from_helper(helper, host) is not None:
        known = True
        _call(helper, "erase", _key(host))

    def forget(config: _Config) -> None:
        auths = _table(config, "auths")
        for key in [key for key in auths if _same(key, host)]:
            del auths[key]

    _change_config(forget)
    return known


def _keep(host: str, account: Credentials) -> None:
    helper = _helper(_read_config(), host)
    if helper is not None:
        entry = {"ServerURL": _key(host), "Username": account.username, "Secret": account.password}
        _call(helper, "store", msgspec.json.encode(entry).decode())
    pair = f"{account.username}:{account.password}".encode()

    def remember(config: _Config) -> None:
        auths = config["auths"] = _table(config, "auths")
        for key in [key for key in auths if _same(key, host)]:
            del auths[key]
        # With a helper the entry stays empty, as Docker has it: it says only that one exists.
        auths[_key(host)] = {} if helper else {"auth": base64.b64encode(pair).decode("ascii")}

    _change_config(remember)


def _key(host: str) -> str:
    return _HUB_KEY if host in _HUB_NAMES else host


def _same(key: str, host: str) -> bool:
    """Tell whether an entry's key, a host name or an address of one, is for ``host``."""
    named = urlsplit(key if "//" in key else f"//{key}").netloc
    return named == host or (named in _HUB_NAMES and host in _HUB_NAMES)


def _helper(config: _Config, host: str) -> str | None:
    """Return which helper keeps this host's account; one for the host goes before the store."""
    for key, name in _table(config, "credHelpers").items():
        if _same(key, host):
            return _checked_helper(name)
    store = config.get("credsStore")
    return _checked_helper(store) if store else None


def _checked_helper(name: object) -> str:
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise RegistryError(f"{config_path()}: {name!r} is not the name of a credential helper")
    return name


def _from_helper(helper: str, host: str) -> Credentials | None:
    said = _call(helper, "get", _key(host))
    if said is None:
        return None
    try:
        entry = json.loads(said)
        username, secret = entry["Username"], entry["Secret"]
    except (ValueError, KeyError, TypeError):
        raise RegistryError(
            f"docker-credential-{helper} gave no account for {host}, but something else",
            hint=f"try it: echo {_key(host)} | docker-credential-{helper} get",
        ) from None
    if username == _IDENTITY:
        return Credentials(username=username, identity_token=str(secret))
    return Credentials(username=str(username), password=str(secret))


def _call(helper: str, verb: _Verb, given: str) -> str | None:
    """Run a helper; return what it says, None where it knows no such account."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb],
            input=given,
            capture_output=True,
            text=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise RegistryError(
            f"{config_path()} keeps passwords in {program}, which is not installed",
            hint=f"install {program}, or take it out of credsStore and credHelpers",
        ) from None
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise RegistryError(
            f"{program} {verb} could not be run: {type(fault).__name__}",
            hint=f"try it: {program} list",
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout + done.stderr).strip()
    if verb != "store" and "not found" in said.lower():
        return None
    # What a failing helper prints may hold the secret that it was given.
    detail = f": {' '.join(said.split())[:200]}" if said and verb == "get" else ""
    raise RegistryError(
        f"{program} {verb} failed with status {done.returncode}{detail}",
        hint=f"unlock or repair the credential store; try it: {program} list",
    )


def _from_file(config: _Config, host: str) -> Credentials | None:
    entries = _table(config, "auths")
    matching = [entries[key] for key in (_key(host), host) if key in entries]
    matching += [entry for key, entry in entries.items() if _same(key, host)]
    for entry in matching:
        if not isinstance(entry, Mapping):
            raise _damaged(f"auths[{host!r}] is no table")
        username, password = str(entry.get("username", "")), str(entry.get("password", ""))
        if entry.get("auth"):
            try:
                text = base64.b64decode(str(entry["auth"]), validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                raise _damaged(f"auths[{host!r}].auth is not base64 of name:password") from None
            username, _, password = text.partition(":")
        identity = str(entry.get("identitytoken", ""))
        if identity or username:
            return Credentials(
                username=username, password=password.rstrip("\0"), identity_token=identity
            )
    return None


def _table(config: _Config, name: str) -> dict[str, Any]:
    table = config.get(name)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise _damaged(f"{name} is no table")
    return table


def _read_config() -> _Config:
    path = config_path()
    try:
        config = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise _damaged(f"it cannot be read ({fault.strerror})") from None
    except ValueError:
        raise _damaged("it is not JSON") from None
    if not isinstance(config, dict):
        raise _damaged("it is no JSON object")
    return config


def _damaged(what: str) -> RegistryError:
    return RegistryError(
        f"{config_path()}: {what}", hint="repair the file, or move it away and log in again"
    )


def _change_config(change: Callable[[_Config], None]) -> None:
    """Rewrite the file atomically, readable by its owner alone, other fields kept."""
    import tempfile  # a push or pull comes by here for nothing but to read

    from filelock import FileLock

    path = config_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A config.json that is a link (dotfiles) stays one: the file behind it is replaced.
        target = path.resolve()
        with FileLock(path.with_name(".torchship-config.lock")):
            before = _read_config()
            after = copy.deepcopy(before)
            change(after)
            if after == before:
                return
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=".config.json-")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(msgspec.json.format(msgspec.json.encode(after), indent=4))
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
    except OSError as fault:
        raise RegistryError(
            f"{path} cannot be written ({fault.strerror})",
            hint="mend its permissions, or name another folder with DOCKER_CONFIG",
        ) from fault
