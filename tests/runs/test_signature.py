"""Signatures of records, made and verified with a private sigstore."""

from __future__ import annotations

import base64
import json
import sys
from types import SimpleNamespace

import click
import pytest
from tests.runs.records import accuracies

from torchship.cli.signing import Wanted, check, signed
from torchship.digest import Digest
from torchship.errors import SignatureError, UsageError
from torchship.oci import artifact, mediatypes
from torchship.oci.store import Store
from torchship.progress import SILENT
from torchship.runs import signature, statement
from torchship.runs.publishing import Published

pytest.importorskip("sigstore")
from sigstore.oidc import IdentityToken
from tests.runs import sigstore as private

ADA = "ada@example.org"


@pytest.fixture(scope="module")
def instance():
    """Serve a private sigstore."""
    with private.serving() as served:
        yield served


@pytest.fixture(scope="module")
def config(instance, tmp_path_factory):
    """Give the file that describes it."""
    path = tmp_path_factory.mktemp("sigstore") / "trust.json"
    path.write_text(instance.trust_config)
    return path


@pytest.fixture(scope="module")
def trusted(config):
    """Give whom its users trust."""
    return signature.trust(config, SILENT)


@pytest.fixture(scope="module")
def published():
    """Give a record, as it is published."""
    found = accuracies(0.99, 0.98, 0.97)
    raw = statement.encode(found)
    return Published(record=statement.parse(raw, "it"), raw=raw)


@pytest.fixture(scope="module")
def bundle(published, trusted):
    """Give its signature by Ada."""
    return signature.sign(published.raw, token=IdentityToken(private.token(ADA)), trusted=trusted)


def refused(raw, about, trusted):
    """Return what is said of a bundle that is refused."""
    with pytest.raises(SignatureError) as caught:
        signature.verify(raw, about, trusted=trusted)
    return caught.value.message


def test_who_signed_is_told(bundle, published, trusted):
    """The identity, and who vouches for it."""
    signer = signature.verify(bundle, published.raw, trusted=trusted)
    assert (signer.identity, signer.issuer) == (ADA, private.ISSUER)


def test_the_statement_is_signed_byte_by_byte(bundle, published):
    """The envelope holds the record's own bytes, under in-toto's type."""
    envelope = json.loads(bundle)["dsseEnvelope"]
    assert base64.b64decode(envelope["payload"]) == published.raw
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert json.loads(bundle)["mediaType"] == signature.BUNDLE


def test_a_workflow_can_sign(published, trusted):
    """Identities are addresses of workflows, too."""
    name = "https://ci.example.org/me/mnist/.ci/publish.yml@refs/heads/main"
    token = IdentityToken(private.token(name))
    made = signature.sign(published.raw, token=token, trusted=trusted)
    assert signature.verify(made, published.raw, trusted=trusted).identity == name


def test_the_log_grows_and_every_entry_is_proven(published, trusted):
    """The proof of inclusion holds wherever in the log an entry is."""
    token = IdentityToken(private.token(ADA))
    for _ in range(5):
        made = signature.sign(published.raw, token=token, trusted=trusted)
        assert signature.verify(made, published.raw, trusted=trusted).identity == ADA


def test_a_changed_record_is_not_the_signed_one(bundle, published, trusted):
    """One digit of a metric."""
    changed = published.raw.replace(b"0.98", b"0.89")
    assert changed != published.raw
    assert "another statement" in refused(bundle, changed, trusted)
    assert not signature.is_about(bundle, changed)


def test_a_changed_payload_breaks_the_signature(bundle, published, trusted):
    """Whoever puts another record into the envelope cannot sign it."""
    changed = published.raw.replace(b"0.98", b"0.89")
    document = json.loads(bundle)
    document["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    raw = json.dumps(document).encode()
    assert signature.is_about(raw, changed)
    assert "does not hold" in refused(raw, changed, trusted)


def test_a_statement_under_another_type_is_not_believed(bundle, published, trusted):
    """The type is signed with the payload."""
    document = json.loads(bundle)
    document["dsseEnvelope"]["payloadType"] = "text/plain"
    assert "does not hold" in refused(json.dumps(document).encode(), published.raw, trusted)


def test_another_instances_signature_does_not_hold(published, trusted, tmp_path):
    """Anyone can run a sigstore and certify to be Ada."""
    with private.serving() as other:
        path = tmp_path / "other.json"
        path.write_text(other.trust_config)
        made = signature.sign(
            published.raw,
            token=IdentityToken(private.token(ADA)),
            trusted=signature.trust(path, SILENT),
        )
    assert "does not hold" in refused(made, published.raw, trusted)


def test_no_part_of_a_bundle_can_be_changed(bundle, published, trusted):
    """Each value in it, replaced: refused in our own words, or without any effect."""
    document = json.loads(bundle)
    leaves = [*_leaves(document)]
    assert len(leaves) > 15
    for holder, key in leaves:
        kept = holder[key]
        for junk in ("", "AAAA", "\u2603", "-1", None, {}, [], 1 << 70, "A" * 10_000):
            holder[key] = junk
            raw = json.dumps(document).encode()
            try:
                assert signature.verify(raw, published.raw, trusted=trusted).identity == ADA
            except SignatureError as error:
                assert "\n" not in error.message
        holder[key] = kept
    essential = ["payload", "sig", "rawBytes", "canonicalizedBody", "rootHash", "envelope"]
    for holder, key in leaves:
        if key in essential:
            kept, holder[key] = holder[key], _flipped(holder[key])
            assert refused(json.dumps(document).encode(), published.raw, trusted), key
            holder[key] = kept


def _leaves(value):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(pairs):
        if isinstance(each, dict | list) and each:
            yield from _leaves(each)
        else:
            yield value, key


def _flipped(text):
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"a":NaN}', b"null"])
def test_what_is_no_bundle_is_refused(raw, published, trusted):
    """Whatever somebody attaches."""
    assert refused(raw, published.raw, trusted)
    assert not signature.is_about(raw, published.raw)


def test_services_that_do_not_answer_are_told(published, tmp_path):
    """Nothing was published, and the hint says so."""
    path = tmp_path / "trust.json"
    path.write_text(private.Sigstore("http://127.0.0.1:9").trust_config)
    with pytest.raises(SignatureError, match="could not be signed") as caught:
        signature.sign(
            published.raw,
            token=IdentityToken(private.token(ADA)),
            trusted=signature.trust(path, SILENT),
        )
    assert "nothing was published" in caught.value.hint


def test_a_faulty_trust_configuration_is_named(tmp_path):
    """By its path."""
    path = tmp_path / "trust.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match=str(path)):
        signature.trust(path, SILENT)


def test_without_the_library_the_extra_is_named(monkeypatch):
    """The hint is the command that installs it."""
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    with pytest.raises(UsageError) as caught:
        signature.trust(None, SILENT)
    assert caught.value.hint == "pip install 'torchship[sign]'"


def test_what_becomes_public_is_told_before_it_does(published, config, monkeypatch, capsys):
    """Whoever does not agree has signed nothing."""
    monkeypatch.setenv(signature.TOKEN, private.token(ADA))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    asked = []
    monkeypatch.setattr(click, "confirm", lambda *_, **__: asked.append(capsys.readouterr()))
    with private.serving() as watched, pytest.raises(SignatureError, match="not signed"):
        config.with_name("watched.json").write_text(watched.trust_config)
        signed(published, trusting=config.with_name("watched.json"), agreed=False)
    (told,) = asked
    assert ADA in told.err and private.ISSUER in told.err and "for ever" in told.err
    assert watched.leaves == []


def test_who_agreed_is_not_asked(published, config, trusted, monkeypatch, capsys):
    """What becomes public is told all the same."""
    monkeypatch.setenv(signature.TOKEN, private.token(ADA))
    made = signed(published, trusting=config, agreed=True)
    assert signature.verify(made, published.raw, trusted=trusted).identity == ADA
    assert ADA in capsys.readouterr().err


def test_a_faulty_token_proves_nobody(trusted, monkeypatch):
    """The hint names the variable that it came in."""
    monkeypatch.setenv(signature.TOKEN, "no token")
    with pytest.raises(SignatureError) as caught:
        signature.identify(trusted)
    assert signature.TOKEN in caught.value.hint


@pytest.fixture
def store(tmp_path):
    """Give an empty store."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def image(store):
    """Give something that can be referred to as an image is."""
    config = store.put(b"{}", mediatypes.OCI_CONFIG).as_json()
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, "config": config}
    raw = json.dumps({**document, "layers": []}).encode()
    return store.put(raw, mediatypes.OCI_MANIFEST)


def checked(store, image, published, config, **wanted):
    """Return what `reproduce` tells of a record's signatures."""
    told = []
    progress = SimpleNamespace(say=told.append)
    check(store, image, published, Wanted(trusting=config, **wanted), progress)
    return told


def test_a_signed_record_is_shown_with_its_signer(store, image, published, bundle, config):
    """Attached as cosign attaches it: to the image, under the bundle's own type."""
    made = signature.attach(store, image, published, bundle)
    found = artifact.read(store, made)
    assert (found.artifact_type, found.subject) == (signature.BUNDLE, image.digest)
    (layer,) = found.layers
    assert layer.media_type == signature.BUNDLE
    assert found.annotations["dev.sigstore.bundle.content"] == "dsse-envelope"
    (told,) = checked(store, image, published, config)
    assert f"signed by {ADA} (says {private.ISSUER})" in told
    assert checked(store, image, published, config, identity=ADA, issuer=private.ISSUER) == [told]


@pytest.mark.parametrize(
    "wanted",
    [
        {"identity": "eve@example.org"},
        {"identity": ADA, "issuer": "https://accounts.example.com"},
        {"identity": "ADA@example.org"},
    ],
)
def test_another_signer_is_not_the_wanted_one(store, image, published, bundle, config, wanted):
    """Nor the same name vouched for by somebody else."""
    signature.attach(store, image, published, bundle)
    with pytest.raises(SignatureError, match=r"signed by ada@example.org .*, and not by"):
        checked(store, image, published, config, **wanted)


def test_an_unsigned_record_is_told_or_refused(store, image, published, config):
    """Refused only where somebody should have signed it."""
    (told,) = checked(store, image, published, config)
    assert "not signed" in told
    with pytest.raises(SignatureError, match="should have signed"):
        checked(store, image, published, config, identity=ADA)


def test_another_records_signature_counts_for_nothing(store, image, published, bundle, config):
    """Two records of one image are signed each for itself."""
    signature.attach(store, image, published, bundle)
    found = accuracies(0.5, 0.6)
    other = Published(record=found, raw=statement.encode(found))
    assert "not signed" in checked(store, image, other, config)[0]
    with pytest.raises(SignatureError):
        checked(store, image, other, config, identity=ADA)


def test_a_faulty_signature_is_an_error_even_beside_a_good_one(
    store, image, published, bundle, config
):
    """Somebody tried: nothing is run."""
    document = json.loads(bundle)
    document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(b"x" * 70).decode()
    signature.attach(store, image, published, json.dumps(document).encode())
    signature.attach(store, image, published, bundle)
    with pytest.raises(SignatureError, match="does not hold"):
        checked(store, image, published, config)


def test_a_signature_that_cannot_be_read_is_an_error(store, image, published, bundle, config):
    """It might be the one that matters."""
    signature.attach(store, image, published, bundle)
    (store.blobs.folder / Digest.of(bundle).hex).unlink()
    with pytest.raises(SignatureError, match="cannot be read"):
        checked(store, image, published, config)


def test_without_the_library_a_signature_is_told_not_trusted(
    store, image, published, bundle, monkeypatch
):
    """And refused where it is wanted."""
    signature.attach(store, image, published, bundle)
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    (told,) = checked(store, image, published, None)
    assert "pip install 'torchship[sign]'" in told
    with pytest.raises(UsageError):
        checked(store, image, published, None, identity=ADA)


def test_an_issuer_alone_says_nothing():
    """Everybody with an account there could sign."""
    with pytest.raises(UsageError, match="--signed-by"):
        Wanted.parse(None, private.ISSUER, None)
