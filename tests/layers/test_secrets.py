"""What looks like a secret, and what only mentions one."""

import base64
import json
import random
import string

import pytest

from torchship.errors import SecretFound
from torchship.layers import secrets

_random = random.Random(7)


def made(prefix, length, alphabet=string.ascii_letters + string.digits):
    """Return a token that nobody issued: written here in two parts, so that no scanner minds."""
    return (prefix + "".join(_random.choices(alphabet, k=length - 1)) + "7").encode()


HEX40 = made("", 40, "0123456789abcdef")
KEY = base64.b64encode(bytes(range(200)))
LINE = "-----{} {}PRIVATE KEY-----"


def pem(kind="", key=KEY):
    """Return a private key that opens nothing."""
    head, tail = LINE.format("BEGIN", kind).encode(), LINE.format("END", kind).encode()
    return head + b"\n" + key + b"\n" + tail + b"\n"


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".env.local", "deploy/.env.production", ".netrc", ".pypirc", "id_rsa",
        "keys/id_ed25519", ".git-credentials", "home/.aws/credentials", ".kaggle/kaggle.json",
        "application_default_credentials.json", "pass.kdbx", ".cache/huggingface/token",
    ],
)  # fmt: skip
def test_names_that_say_it_all(path):
    """Such a file is a secret whatever is in it."""
    assert secrets.by_name(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env.example", ".env.template", "main.py", "env.py", ".envrc.md", "id_rsa.pub",
        "environment.yml", "credentials.py", "tokenizer.json", "kaggle.json.md", "secrets.py",
        "data/token.txt", ".github/workflows/test.yml",
    ],
)  # fmt: skip
def test_names_that_only_sound_alike(path):
    """Examples, public keys and code are no secrets by their names."""
    assert secrets.by_name(path) is None


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("key.pem", pem()),
        ("key.pem", pem(key=b"MIIEvg")),
        ("key", pem(key=b"MC4CAQAwBQYDK2Vw")),
        ("kaggle.json", b'{"username":"me","key":"' + HEX40 + b'"}'),
        ("main.py", b'wandb.login(key="' + HEX40 + b'")'),
        ("main.py", b"wandb.login('" + HEX40 + b"', relogin=True)"),
        ("main.py", b'os.environ["WANDB_API_KEY"] = "' + HEX40 + b'"'),
        ("run.sh", b"export WANDB_API_KEY=" + HEX40 + b"\n"),
        ("key", pem("RSA ")),
        ("server.txt", b"x = 1\n" + pem("EC ")),
        ("ssh", pem("OPENSSH ")),
        (
            "account.json",
            json.dumps({"type": "service_account", "private_key": pem().decode()}).encode(),
        ),
        ("train.py", b"key = '" + made("AKIA", 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") + b"'"),
        ("train.py", b"token='" + made("hf_", 34) + b"'"),
        ("a.yml", b"token: " + made("ghp_", 36)),
        ("a.yml", b"token: " + made("github_pat_", 82)),
        ("a.yml", b"token: " + made("glpat-", 20)),
        ("a.py", b"openai.api_key = '" + made("sk-", 48) + b"'"),
        ("a.py", b"k='" + made("sk-proj-", 60) + b"'"),
        ("a.py", b"k='" + made("xoxb-", 40) + b"'"),
        (".npmrc", b"//host/:_authToken=" + made("", 30)),
        ("up.sh", b"-p " + made("pypi-AgE", 100)),
        (".docker/config.json", b'{"auths": {"host": {"auth": "dXNlcjpwYXNz"}}}'),
        ("kubeconfig", b"users:\n- name: me\n  user:\n    token: abcdef\n"),
        ("adc.json", b'{"type": "authorized_user", "refresh_token": "1//x"}'),
        ("requirements.txt", b"--extra-index-url https://ci:Winter-2031@pypi.corp/simple\nsix\n"),
        ("pip.conf", b"[global]\nindex-url = https://me%40corp.com:aP3%2Fx9k@pypi.corp/simple\n"),
        ("uv.toml", b'[[index]]\nurl = "https://aws:eyJ2ZXIiOjEsInRrbiI6@a.d.codeartifact.aws"\n'),
        ("nb.ipynb", b'{"source": ["!pip install -i https://x:u7Gq2Lw0@pypi.corp/simple\\n"]}'),
        ("compose.yml", b"url: redis://:n0tS0Rand0m@cache.corp:6379/0"),
        ("db.py", b'connect("mongodb+srv://$USER:tr0ub4dor@cluster0.ab1cd.mongodb.net/x")'),
        ("a.json", b'{"index": "https://ci:Winter-2031@pypi.corp/simple"}'),
    ],
    ids=str,
)
def test_contents_that_are_secrets(path, data):
    """Keys and tokens are found in any small text."""
    assert secrets.by_content(path, data)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("README.md", b"Set HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx before you start."),
        ("README.md", b"export OPENAI_API_KEY=sk-..."),
        ("README.md", b"export WANDB_API_KEY=<your key>, or wandb.login(key='...')"),
        ("main.py", b'wandb.login()\nCOMMIT = "' + HEX40 + b'"'),
        ("kaggle.json", b'{"username":"me","key":""}'),
        ("README.md", b"AKIAIOSFODNN7EXAMPLE is what the tutorial says"),
        ("ssl.py", b"if data.startswith(b'-----BEGIN PRIVATE KEY-----'):"),
        ("cert.pem", b"-----BEGIN CERTIFICATE-----\n" + KEY),
        ("pub.pem", b"-----BEGIN PUBLIC KEY-----\n" + KEY),
        ("style.css", b".task-list-item-checkbox-and-some-more-long-class-names-here {}"),
        ("css.css", b".sk-toggleable__content-and-a-very-long-class-name-of-sklearn-html {}"),
        ("nb.ipynb", b"#sk-container-id-1 div.sk-label-container:hover label.sk-toggleable__x"),
        (".npmrc", b"//host/:_authToken=${NPM_TOKEN_FROM_ENVIRONMENT}"),
        ("config.json", b'{"auths": {}, "private_key": null}'),
        ("config.json", b'{"auths": {"host": {}}, "credsStore": "desktop"}'),
        ("config.json", b'not json "auths"'),
        ("weights.bin", b"\0" + made("hf_", 34)),
        ("vocab.txt", b"hf_ sk- ghp_ AKIA\n" * 100),
        ("digests.txt", b"sha256:" + b"0123456789abcdef" * 4),
        ("empty", b""),
        ("README.md", b"pip install -i https://user:password@host/simple, or https://u:p@h"),
        ("README.md", b"https://__token__:<your-token>@pypi.corp/ https://me:...@pypi.corp"),
        (
            "README.md",
            b"https://user:YOUR_API_KEY@pypi.corp https://me:xxxxxxxx@h https://me:***@h",
        ),
        ("README.md", b"postgresql://user:password123@db.corp/x amqp://guest:guest@mq.corp"),
        ("README.md", b"https://ci:Winter-2031@pypi.example.com https://ci:Winter-2031@localhost"),
        ("pip.conf", b"index-url = https://ci:${PYPI_TOKEN}@pypi.corp https://ci:$TOKEN@pypi.corp"),
        ("ci.yml", b"https://x-access-token:${{ secrets.GH }}@github.com https://ci:@pypi.corp"),
        ("main.py", b"f'https://{user}:{password}@pypi.corp' 'https://%s:%s@h.corp' % login"),
        ("main.py", b"'https://' + user + ':' + word + '@pypi.corp'; r'://([^:]+):([^@]+)@(.*)'"),
        ("run.bat", b"set url=https://%USER%:%WORD%@pypi.corp"),
        (
            "a.md",
            b"git://host.corp:9418/x@v1 ssh://git@host.corp:22/x https://h.corp:443?mail=a@b.c",
        ),
        ("a.yml", b"image: docker://debian:12.5-slim@sha256:" + b"0123456789abcdef" * 4),
    ],
    ids=str,
)
def test_contents_that_only_mention_secrets(path, data):
    """Placeholders, public halves, class names and binaries are none."""
    assert secrets.by_content(path, data) is None


def searched(*pieces, path="nb.ipynb"):
    """Return what a search says of pieces."""
    search = secrets.Search(path)
    for piece in pieces:
        search.feed(piece)
    return search.reason


@pytest.mark.parametrize("cut", [0, 1, 3, 20, 30, 37])
def test_a_token_that_two_pieces_share_is_found(cut):
    """A large file is read in pieces, and ends of them are looked at again."""
    token = made("hf_", 34) + b" "
    filler = b"filler " * 10_000
    assert searched(filler + token[:cut], token[cut:] + filler) == "a Hugging Face token"
    assert searched(filler, filler) is None


def test_of_a_huge_text_the_beginning_is_searched(monkeypatch):
    """A build reads it all to hash it, and that takes a tenth of the time."""
    monkeypatch.setattr(secrets, "MOST", 1000)
    token = made("hf_", 34)
    assert searched(b" " * 990, token)
    assert not searched(b" " * 1000, token)


def test_what_begins_as_a_binary_is_not_searched():
    """Weights hold all there is, by chance."""
    assert searched(b"\0" * 10, made("hf_", 34)) is None


def test_a_search_takes_no_longer_for_what_resembles_an_address():
    """What is looked for has a bounded length: time does not grow with the square of a line's."""
    data = b"://" + b"a:" * 500_000 + b"@"
    assert secrets.by_content("a.txt", data) is None
    assert secrets.by_content("a.txt", b"://a:" * 200_000 + b"@") is None


def test_all_findings_are_in_one_error():
    """The user mends all of them at once, and is told how."""
    with pytest.raises(SecretFound) as raised:
        secrets.refuse(
            [
                secrets.Finding(path="b/.env", reason="environment"),
                secrets.Finding(path="a.pem", reason="a private key"),
            ]
        )
    assert "a.pem (a private key); b/.env (environment)" in raised.value.message
    assert 'allow = ["a.pem", "b/.env"]' in raised.value.hint
    assert ".dockerignore" in raised.value.hint


def test_nothing_found_is_nothing_raised():
    """Most projects have none."""
    secrets.refuse([])
