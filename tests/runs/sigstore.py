"""A private sigstore: a certificate authority, a certificate log and a transparency log.

Small, but everything in it is real cryptography over the real protocols: what it signs, the
sigstore library verifies with every check that it makes of the public instance.

Sources: fulcio's and rekor's OpenAPI descriptions; RFC 6962; the checkpoint format of
transparency-dev.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://accounts.example.org"
_SINCE = datetime(2020, 1, 1, tzinfo=UTC)
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_FULCIO_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_FULCIO_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SHA256 = ec.ECDSA(hashes.SHA256())


def token(identity, *, issuer=ISSUER):
    """Return an OIDC token that says who somebody is; nobody but our own authority believes it."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": identity, "aud": "sigstore", "iat": now, "exp": now + 600}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    return ".".join([*(_url64(json.dumps(part).encode()) for part in parts), _url64(b"x" * 32)])


class Sigstore:
    """One instance. ``trust_config`` is what its users are given, as JSON."""

    def __init__(self, url="http://127.0.0.1:9"):
        self.url = url
        self._root_key, self._ct_key, self._log_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self.root = self._authority()
        self.leaves = []

    def _authority(self):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private sigstore")])
        key = self._root_key.public_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key)
            .serial_number(1)
            .not_valid_before(_SINCE)
            .not_valid_after(_SINCE + timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._root_key, hashes.SHA256())
        )

    def certify(self, key, identity, issuer):
        """Give a certificate of ten minutes, noted in the certificate log (RFC 6962, 3.2)."""
        now = datetime.now(UTC).replace(microsecond=0)
        encoded = issuer.encode()
        names = [x509.UniformResourceIdentifier(identity)]
        if "://" not in identity:
            names = [x509.RFC822Name(identity)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.UnrecognizedExtension(_FULCIO_ISSUER, encoded), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(_FULCIO_ISSUER_V2, bytes([12, len(encoded)]) + encoded),
                critical=False,
            )
        )
        unlogged = builder.sign(self._root_key, hashes.SHA256())
        body = unlogged.tbs_certificate_bytes
        moment = int(now.timestamp() * 1000)
        signed = (
            struct.pack("!BBQH", 0, 0, moment, 1)
            + _key_id(self._root_key)
            + struct.pack("!I", len(body))[1:]
            + body
            + struct.pack("!H", 0)
        )
        signature = self._ct_key.sign(signed, _SHA256)
        timestamp = (
            struct.pack("!B32sQH", 0, _key_id(self._ct_key), moment, 0)
            + struct.pack("!BBH", 4, 3, len(signature))  # SHA-256, ECDSA
            + signature
        )
        entries = struct.pack("!H", len(timestamp)) + timestamp
        inner = struct.pack("!H", len(entries)) + entries
        length = bytes([len(inner)]) if len(inner) < 128 else bytes([0x81, len(inner)])
        scts = x509.UnrecognizedExtension(_SCT_LIST, b"\x04" + length + inner)
        return builder.add_extension(scts, critical=False).sign(self._root_key, hashes.SHA256())

    def log(self, proposed):
        """Note a signature for all time; return the entry with its proof of inclusion."""
        envelope = json.loads(proposed["spec"]["proposedContent"]["envelope"])
        (verifier,) = proposed["spec"]["proposedContent"]["verifiers"]
        raw = proposed["spec"]["proposedContent"]["envelope"].encode()
        payload = base64.b64decode(envelope["payload"])
        body = _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": _sha256(raw)},
                    "payloadHash": {"algorithm": "sha256", "value": _sha256(payload)},
                    "signatures": [
                        {"signature": each["sig"], "verifier": verifier}
                        for each in envelope["signatures"]
                    ],
                },
            }
        )
        self.leaves.append(hashlib.sha256(b"\0" + body).digest())
        index, proof = len(self.leaves) - 1, []
        root = _root(self.leaves, index, proof)
        entry = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": int(time.time()),
            "logID": _key_id(self._log_key).hex(),
            "logIndex": index,
        }
        promise = self._log_key.sign(_canonical(entry), _SHA256)
        note = f"private log - 1\n{len(self.leaves)}\n{base64.b64encode(root).decode()}\n"
        signature = _key_id(self._log_key)[:4] + self._log_key.sign(note.encode(), _SHA256)
        entry["verification"] = {
            "signedEntryTimestamp": base64.b64encode(promise).decode(),
            "inclusionProof": {
                "checkpoint": f"{note}\n\u2014 log {base64.b64encode(signature).decode()}\n",
                "hashes": [each.hex() for each in proof],
                "logIndex": index,
                "rootHash": root.hex(),
                "treeSize": len(self.leaves),
            },
        }
        return {f"{index:064x}": entry}

    @property
    def trust_config(self):
        """What a user needs: the keys to trust, and where to sign."""
        since = {"start": "2020-01-01T00:00:00Z"}
        service = {
            "url": self.url,
            "majorApiVersion": 1,
            "validFor": since,
            "operator": "private",
        }

        def log(key):
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": base64.b64encode(_public(key)).decode(),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": base64.b64encode(_key_id(key)).decode()},
            }

        root = self.root.public_bytes(serialization.Encoding.DER)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
                "trustedRoot": {
                    "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                    "tlogs": [log(self._log_key)],
                    "ctlogs": [log(self._ct_key)],
                    "certificateAuthorities": [
                        {
                            "subject": {"organization": "x", "commonName": "private sigstore"},
                            "uri": self.url,
                            "certChain": {
                                "certificates": [{"rawBytes": base64.b64encode(root).decode()}]
                            },
                            "validFor": since,
                        }
                    ],
                    "timestampAuthorities": [],
                },
                "signingConfig": {
                    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                    "caUrls": [service],
                    "oidcUrls": [service],
                    "rekorTlogUrls": [service],
                    "tsaUrls": [],
                    "rekorTlogConfig": {"selector": "ANY"},
                    "tsaConfig": {"selector": "ANY"},
                },
            }
        )


@contextmanager
def serving():
    """Serve an instance on a free port of the loopback; yields it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.sigstore = Sigstore(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.sigstore
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        """Answer fulcio's and rekor's one request each."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sigstore = self.server.sigstore
        if self.path == "/api/v2/signingCert":
            answer = self._certificate(sigstore, asked)
        elif self.path == "/api/v1/log/entries":
            answer = sigstore.log(asked)
        else:
            answer = None
        self.send_response(404 if answer is None else 201)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def _certificate(self, sigstore, asked):
        encoded = self.headers["Authorization"].removeprefix("Bearer ").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        request = base64.b64decode(asked["certificateSigningRequest"])
        key = x509.load_pem_x509_csr(request).public_key()
        made = sigstore.certify(key, claims["sub"], claims["iss"])
        chain = [
            each.public_bytes(serialization.Encoding.PEM).decode() for each in (made, sigstore.root)
        ]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def log_message(self, *_):
        """Say nothing."""


def _usage(**given):
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment"]
    names += ["key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _root(leaves, index, proof):
    """Return the hash of a Merkle tree, and the path to a leaf from below (RFC 6962, 2.1)."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    inner = []
    left = _root(leaves[:split], index if index < split else 0, inner if index < split else [])
    right = _root(
        leaves[split:], index - split if index >= split else 0, inner if index >= split else []
    )
    proof += [*inner, right if index < split else left]
    return hashlib.sha256(b"\1" + left + right).digest()


def _public(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_id(key):
    return hashlib.sha256(_public(key)).digest()


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
