"""Values that hold secrets."""

from typing import ClassVar

from rich.pretty import pretty_repr

from torchship.discreet import Discreet


class Account(Discreet, frozen=True, kw_only=True):
    """An account as any client has it."""

    secrets: ClassVar[frozenset[str]] = frozenset({"password"})

    name: str
    password: str = ""


def test_a_secret_is_not_shown():
    """Neither by Python nor by rich, and inside other values no more than alone."""
    account = Account(name="ada", password="open sesame")
    for shown in (repr(account), str(account), f"{[account]}", pretty_repr({"who": account})):
        assert "open sesame" not in shown
        assert "Account(name='ada')" in shown


def test_what_differs_in_its_secret_is_not_the_same():
    """What is hidden still counts."""
    assert Account(name="ada", password="one") != Account(name="ada", password="two")
    assert Account(name="ada", password="one") == Account(name="ada", password="one")
