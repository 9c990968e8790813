"""Docker's configuration file and credential helpers."""

import base64
import json
import stat

import pytest
from tests.integration import proxy as faults

from torchship.errors import RegistryError, UsageError
from torchship.oci import auth

HELPER = """#!/bin/sh
# Keeps one account a file, as the protocol has it: everything secret comes by standard input.
echo "$@" >> {folder}/arguments
read -r given
case "$1" in
get)
    [ "$given" = "{server}" ] && [ -f {folder}/kept ] && cat {folder}/kept && exit 0
    echo "credentials not found in native keychain"; exit 1 ;;
store) printf '%s\\n' "$given" > {folder}/kept ;;
erase) rm -f {folder}/kept ;;
esac
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Give the path of a configuration file that is not there yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Install a credential helper `test`, for a server."""

    def install(server="registry.example", script=HELPER):
        folder = tmp_path / "helper"
        folder.mkdir(exist_ok=True)
        program = folder / "docker-credential-test"
        program.write_text(script.format(folder=folder, server=server))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return folder

    return install


def write(config, document):
    """Write a configuration file."""
    config.parent.mkdir(exist_ok=True)
    config.write_text(document if isinstance(document, str) else json.dumps(document))


def encoded(text):
    """Return base64, as ``auth`` has it."""
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def server():
    """Give a registry that lets ada in, with the password `open sesame`."""
    with faults.running() as running:

        def answer(exchange):
            known = exchange.headers.get("Authorization") == f"Basic {encoded('ada:open sesame')}"
            basic = {"WWW-Authenticate": 'Basic realm="x"'}
            faults.answered(*((200,) if known else (401, basic)))(exchange)

        running.on("GET", "^/v2/$", answer, times=-1)
        yield running


# -- reading


def test_no_file_is_no_account(config):
    """Whoever never logged in is anonymous."""
    assert auth.credentials("registry.example") is None


@pytest.mark.parametrize(
    "key", ["registry.example", "https://registry.example", "https://registry.example/v1/"]
)
def test_accounts_are_found_under_every_form_of_the_name(config, key):
    """Docker has written host names and addresses over the years."""
    write(config, {"auths": {key: {"auth": encoded("ada:a:b")}}})
    found = auth.credentials("registry.example")
    assert (found.username, found.password) == ("ada", "a:b")
    assert auth.credentials("example") is None
    assert auth.credentials("registry.example:5000") is None


def test_docker_hub_has_a_key_of_its_own(config):
    """What `docker login` writes for Docker Hub is found for docker.io."""
    write(config, {"auths": {"https://index.docker.io/v1/": {"auth": encoded("ada:x")}}})
    assert auth.credentials("docker.io").username == "ada"


def test_identity_tokens_are_read(config):
    """A token that stands for the account is kept apart from passwords."""
    write(config, {"auths": {"h.example": {"auth": encoded("ada:"), "identitytoken": "long"}}})
    assert auth.credentials("h.example").identity_token == "long"


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        {"auths": []},
        {"auths": {"registry.example": "x"}},
        {"auths": {"registry.example": {"auth": "%%%"}}},
        {"credHelpers": {"registry.example": "../../bin/evil"}},
        {"credsStore": ["x"]},
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(config, document):
    """A file that cannot be understood is not taken for an empty one."""
    write(config, document)
    with pytest.raises(RegistryError) as caught:
        auth.credentials("registry.example")
    assert str(config) in caught.value.message


# -- helpers


@pytest.mark.parametrize(
    "table", [{"credsStore": "test"}, {"credHelpers": {"registry.example": "test"}}]
)
def test_helpers_are_asked(config, helper, table):
    """Both the general store and one for the host are asked by standard input."""
    folder = helper()
    (folder / "kept").write_text('{"Username": "ada", "Secret": "from the helper"}')
    write(config, table)
    assert auth.credentials("registry.example").password == "from the helper"
    assert (folder / "arguments").read_text() == "get\n"


def test_a_helper_may_keep_an_identity_token(config, helper):
    """The user name `<token>` says that the secret is one."""
    (helper() / "kept").write_text('{"Username": "<token>", "Secret": "long"}')
    write(config, {"credsStore": "test"})
    assert auth.credentials("registry.example").identity_token == "long"


def test_a_helper_that_knows_nothing_leaves_the_file(config, helper):
    """No account in the helper is no fault; the file may have one."""
    helper()
    write(config, {"credsStore": "test", "auths": {"registry.example": {"auth": encoded("a:b")}}})
    assert auth.credentials("registry.example").username == "a"
    assert auth.credentials("other.example") is None


def test_a_missing_helper_is_named(config, monkeypatch, tmp_path):
    """The error says which program is missing, and what to do without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    write(config, {"credsStore": "desktop"})
    with pytest.raises(RegistryError, match="docker-credential-desktop") as caught:
        auth.credentials("registry.example")
    assert "credsStore" in caught.value.hint


@pytest.mark.parametrize("script", ["#!/bin/sh\necho locked; exit 3\n", "#!/bin/sh\necho '[1]'\n"])
def test_a_failing_helper_is_an_error(config, helper, script):
    """A helper that fails, or speaks nonsense, is not taken for an empty one."""
    helper(script=script)
    write(config, {"credsStore": "test"})
    with pytest.raises(RegistryError, match="docker-credential-test"):
        auth.credentials("registry.example")


# -- login and logout


def test_login_keeps_what_the_registry_accepts(config, server):
    """The file is for its owner alone, and its other fields are as they were."""
    write(config, {"psFormat": "x", "auths": {"other": {"auth": "eDp5"}}, "plugins": {"a": "b"}})
    auth.login(server.host, "ada", "open sesame")
    kept = json.loads(config.read_text())
    assert kept.pop("auths") == {
        "other": {"auth": "eDp5"},
        server.host: {"auth": encoded("ada:open sesame")},
    }
    assert kept == {"psFormat": "x", "plugins": {"a": "b"}}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert auth.credentials(server.host).password == "open sesame"


def test_a_refused_login_changes_nothing(config, server):
    """A wrong password is not kept, nor shown."""
    with pytest.raises(RegistryError) as caught:
        auth.login(server.host, "ada", "xyzzy")
    assert caught.value.message == f"wrong user name or password for {server.host}"
    assert "xyzzy" not in f"{caught.value.hint}{caught.value.request}"
    assert not config.exists()


def test_login_needs_both_name_and_password(config, server):
    """An empty password is a slip of the pipe, not an account."""
    with pytest.raises(UsageError, match="password"):
        auth.login(server.host, "ada", "")


def test_login_with_a_helper_leaves_no_password_in_the_file(config, helper, server):
    """The helper keeps it; the file says only that there is an account; nothing is in argv."""
    folder = helper(server.host)
    write(config, {"credsStore": "test", "auths": {server.host: {"auth": encoded("old:old")}}})
    auth.login(server.host, "ada", "open sesame")
    assert json.loads(config.read_text())["auths"] == {server.host: {}}
    assert json.loads((folder / "kept").read_text()) == {
        "ServerURL": server.host,
        "Username": "ada",
        "Secret": "open sesame",
    }
    assert (folder / "arguments").read_text() == "store\n"
    assert auth.credentials(server.host).password == "open sesame"
    assert auth.logout(server.host)
    assert not (folder / "kept").exists()
    assert json.loads(config.read_text())["auths"] == {}


def test_a_helper_that_cannot_store_does_not_show_the_secret(config, helper, server):
    """What a failing helper prints may be what it was given."""
    helper(script="#!/bin/sh\ncat; exit 1\n")
    write(config, {"credsStore": "test"})
    with pytest.raises(RegistryError) as caught:
        auth.login(server.host, "ada", "open sesame")
    assert "sesame" not in f"{caught.value.message}{caught.value.hint}"


def test_logout_forgets_every_form_of_the_name(config):
    """After a logout no entry for the host is left; the second one finds nothing."""
    write(config, {"auths": {"h.example": {"auth": encoded("a:b")}, "https://h.example": {}}})
    assert auth.logout("h.example")
    assert json.loads(config.read_text()) == {"auths": {}}
    assert not auth.logout("h.example")


def test_a_linked_file_stays_a_link(config, tmp_path, server):
    """Dotfiles kept elsewhere are changed where they are."""
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    config.parent.mkdir()
    config.symlink_to(real)
    auth.login(server.host, "ada", "open sesame")
    assert config.is_symlink()
    assert server.host in json.loads(real.read_text())["auths"]
