"""Commands on registries: login, logout, push, pull, copy, tags."""

from __future__ import annotations

import sys

import click

from torchship.cli import destination
from torchship.cli.common import choice, example, open_store, variant
from torchship.errors import InvalidReference, UsageError


@click.command(
    epilog=example(
        "torchship login docker.io -u me",
        "torchship login registry.example:5000 -u me --password-stdin < token",
    )
)
@click.argument("host", default="docker.io")
@click.option("-u", "--username", help="Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def login(host: str, username: str | None, password_stdin: bool) -> None:
    """Check an account with a registry and keep it where Docker keeps it."""
    from torchship.oci import auth

    if password_stdin:
        if username is None:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.readline().rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for the password",
            hint=f"torchship login {host} --username NAME --password-stdin < FILE",
        )
    else:
        username = username or click.prompt("Username", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    auth.login(_registry(host), username, password)
    click.echo(f"logged in to {host} as {username}", err=True)


@click.command(epilog=example("torchship logout docker.io"))
@click.argument("host", default="docker.io")
def logout(host: str) -> None:
    """Forget the account at a registry."""
    from torchship.oci import auth

    known = auth.logout(_registry(host))
    click.echo(f"logged out of {host}" if known else f"not logged in to {host}", err=True)


def _registry(host: str) -> str:
    """Return a registry's name, checked; raise `UsageError` for an address or a path."""
    from torchship.oci.reference import check_registry

    try:
        check_registry(host, host)
    except InvalidReference:
        raise UsageError(
            f"{host!r} is not the name of a registry",
            hint="write a host, with its port where it has one: registry.example:5000",
        ) from None
    return host


@click.command(epilog=example("torchship push registry.example:5000/me/mnist:v0.1"))
@click.argument("reference")
def push(reference: str) -> None:
    """Send an image of the store to its registry: only what the registry lacks."""
    from torchship.display import display

    store = open_store()
    found = store.find(reference)
    with display() as progress:
        destination.send(store, found, reference, progress)
    click.echo(found.digest)


@click.command(epilog=example("torchship pull registry.example:5000/me/mnist:v0.1"))
@click.argument("reference")
@click.option("--platform", metavar="OS/ARCH", help="Take this platform of an index.")
@variant
@click.option("--all-platforms", is_flag=True, help="Take every platform and variant of an index.")
def pull(reference: str, platform: str | None, variant: str | None, all_platforms: bool) -> None:
    """Bring an image into the store, every byte verified, and what refers to it."""
    from torchship.amounts import size
    from torchship.display import display
    from torchship.engines.gpu import AUTO, Gpus
    from torchship.oci.attached import pull_referrers
    from torchship.oci.image import read_image
    from torchship.oci.pull import pull as fetch
    from torchship.oci.reference import Reference
    from torchship.platform import Platform

    if all_platforms and (platform or variant):
        raise UsageError("--all-platforms takes all: leave out --platform and --variant")
    wanted = Platform.parse(platform) if platform else Platform.host()
    store, named = open_store(), Reference.parse(reference)
    with display() as progress:
        pulled = fetch(
            named,
            store,
            platform=None if all_platforms else wanted,
            choice=choice(variant, gpus=Gpus(amount=AUTO)),
            progress=progress,
        )
        if variant:
            read_image(store, pulled.descriptor, wanted, variant)
        attached = pull_referrers(named, store, pulled.descriptor, progress=progress)
        about = f", and {len(attached)} that refer to it" if attached else ""
        progress.say(
            f"received {size(pulled.received)}, already here {size(pulled.skipped)}{about}"
        )
    click.echo(pulled.descriptor.digest)


@click.command(
    epilog=example(
        "torchship copy docker.io/me/mnist:v0.1 registry.example/me/mnist:v0.1",
        "torchship copy registry.example/me/mnist:v2 registry.example/me/mnist:latest",
    )
)
@click.argument("source")
@click.argument("target")
@click.option(
    "--platform", metavar="OS/ARCH", help="Copy this platform of an index; all, unless given."
)
def copy(source: str, target: str, platform: str | None) -> None:
    """Copy an image between registries, or within one, and what refers to it.

    The copy has the same digest. Nothing is stored here on the way.
    """
    from torchship.display import display
    from torchship.oci.copy import copy as transfer
    from torchship.oci.reference import Reference
    from torchship.platform import Platform

    named = Reference.parse(target)
    with display() as progress:
        sent = transfer(
            Reference.parse(source),
            named,
            platform=Platform.parse(platform) if platform else None,
            progress=progress,
        )
        progress.say(destination.told(named, sent))
    click.echo(sent.descriptor.digest)


@click.command(epilog=example("torchship tags registry.example:5000/me/mnist"))
@click.argument("repository")
@click.option("--all", "everything", is_flag=True, help="Also those that list records of images.")
def tags(repository: str, everything: bool) -> None:
    """List the tags that a repository has in its registry."""
    from torchship.oci.reference import Reference
    from torchship.oci.referrers import is_list
    from torchship.oci.registry.client import Registry

    reference = Reference.parse(repository)
    for tag in Registry(reference.registry).tags(reference.repository):
        if everything or not is_list(tag):
            click.echo(tag)
