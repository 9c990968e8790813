"""Challenges and tokens."""

import json
import threading

import pytest
from tests.integration import proxy as faults

from torchship.errors import RegistryError
from torchship.oci.registry.patience import Patience
from torchship.oci.registry.session import Session
from torchship.oci.registry.token import Authorizer, Credentials, challenges
from torchship.oci.registry.transport import Transport

ADA = Credentials(username="ada", password="open sesame")
SCOPES = ("repository:me/x:pull",)


@pytest.fixture
def server():
    """Give an HTTP server that answers by rules."""
    with faults.running() as running:
        yield running


def session(server, account=ADA):
    """Give a session with an account."""
    transport = Transport(server.host, patience=Patience(attempts=2, first=0.01, silence=2.0))
    return Session(transport, Authorizer(transport, lambda: account))


def guard(server, challenge, accepted):
    """Let the server want an Authorization field."""

    def answer(exchange):
        known = exchange.headers.get("Authorization") == accepted
        faults.answered(*((200,) if known else (401, {"WWW-Authenticate": challenge})))(exchange)

    server.on("GET|PUT", "^/v2/", answer, times=-1)


def give(server, status=200, **document):
    """Let the server give tokens."""
    server.on("GET|POST", "^/token", faults.answered(status, {}, json.dumps(document).encode()))


def bearer(server):
    """Return the challenge that leads to the server's own token service."""
    return f'Bearer realm="http://{server.host}/token?x=1",service="the registry",scope="s"'


def test_challenges_are_read_whatever_their_form():
    """Several schemes, quoted and bare values, escapes and odd spaces."""
    found = challenges('Basic realm="a, b" , bearer Realm="https://r/t",service=x, error="\\"q\\""')
    assert found["basic"].parameters == {"realm": "a, b"}
    assert found["bearer"].parameters == {"realm": "https://r/t", "service": "x", "error": '"q"'}
    assert challenges("") == {}
    assert challenges("Negotiate")["negotiate"].parameters == {}


def test_basic_is_used_where_it_is_asked_for(server):
    """User name and password go out after the challenge, and at once from then on."""
    guard(server, 'Basic realm="x"', ADA.basic)
    client = session(server)
    for _ in range(2):
        client.ask("GET", "/v2/", (), expect={200})
    sent = [one.headers.get("authorization") for one in server.seen if one.path == "/v2/"]
    assert sent[-3:] == [None, ADA.basic, ADA.basic]


def test_bearer_is_preferred_to_basic(server):
    """Where both are offered, the password goes to the token service alone."""
    guard(server, f"Basic realm=x, {bearer(server)}", "Bearer t1")
    give(server, token="t1")
    session(server).ask("GET", "/v2/", SCOPES, expect={200})
    asked = next(one for one in server.seen if one.path.startswith("/token"))
    assert asked.headers["authorization"] == ADA.basic
    assert asked.path == (
        "/token?x=1&service=the+registry&scope=repository%3Ame%2Fx%3Apull&account=ada"
    )
    assert not any(
        one.headers.get("authorization") == ADA.basic
        for one in server.seen
        if one.path.startswith("/v2/")
    )


def test_many_threads_ask_for_one_token(server):
    """A challenge that all meet at once is answered once."""
    guard(server, bearer(server), "Bearer t1")
    give(server, access_token="t1", expires_in=300)
    client = session(server)
    failures = []

    def ask():
        try:
            client.ask("GET", "/v2/", SCOPES, expect={200})
        except RegistryError as fault:
            failures.append(fault)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert server.count("GET", "^/token") == 1


@pytest.mark.parametrize("token", ["", "a b", "a\r\nHost: x", "\u00e4"])
def test_a_token_that_is_none_is_refused(server, token):
    """What would break out of a header line never gets into one."""
    guard(server, bearer(server), "Bearer t1")
    give(server, token=token)
    with pytest.raises(RegistryError, match="no token"):
        session(server).ask("GET", "/v2/", SCOPES, expect={200})


def test_a_refused_login_says_how_to_log_in(server):
    """Neither the password nor a token is shown."""
    guard(server, bearer(server), "never")
    give(server, 401, details="bad Basic b3BlbiBzZXNhbWU=")
    with pytest.raises(RegistryError, match="refuses the login") as caught:
        session(server).ask("GET", "/v2/", SCOPES, expect={200})
    assert caught.value.hint == f"log in: torchship login {server.host}"
    assert "b3Blb" not in repr(caught.value.args)


def test_a_token_that_the_registry_refuses_ends_the_matter(server):
    """One renewal, and no more: nobody goes round for ever."""
    guard(server, bearer(server), "never")
    for number in range(9):
        give(server, token=f"t{number}")
    with pytest.raises(RegistryError) as caught:
        session(server).ask("GET", "/v2/", SCOPES, expect={200})
    assert caught.value.status == 401
    assert server.count("GET", "^/token") <= 2


def test_the_token_service_must_be_encrypted_too(server):
    """A realm in the clear, elsewhere, gets no password."""
    guard(server, 'Bearer realm="http://token.example/"', "never")
    with pytest.raises(RegistryError, match="not encrypted"):
        session(server).ask("GET", "/v2/", SCOPES, expect={200})


def test_an_unknown_scheme_is_told(server):
    """A registry that wants Kerberos gets a clear error."""
    guard(server, "Negotiate", "never")
    with pytest.raises(RegistryError, match="no way that torchship knows"):
        session(server).ask("GET", "/v2/", SCOPES, expect={200})


def test_credentials_do_not_show_their_secrets():
    """Not in a debugger, not in a log."""
    shown = repr(Credentials(username="ada", password="open sesame", identity_token="secret"))
    assert "sesame" not in shown
    assert "secret" not in shown
