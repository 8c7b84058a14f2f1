"""Signed envelopes (DSSE 1.0, https://github.com/secure-systems-lab/dsse, `protocol.md` and `envelope.md`).

Keys are Ed25519 or ECDSA on the curve P-256 in PEM files, as `openssl genpkey` writes them. The signature
covers the type and the bytes of the payload. ECDSA signs SHA-256, with a signature in DER. A key is called by
the SHA-256 of its public half (SubjectPublicKeyInfo in DER). `cryptography` is imported when a key is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_llm_pipeline.errors import ArtifactError, BadArgument, SigningError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_KINDS = "an Ed25519 key or an ECDSA key on the curve P-256, in PEM"
_LARGEST_KEY = 64 << 10


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope: what its key is called, which nothing vouches for, and its bytes."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with its type, and the signatures of both; none where nobody signed."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @property
    def signed_bytes(self) -> bytes:
        """What a signature covers: DSSE's pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def as_json_line(self) -> bytes:
        """The envelope as one line of JSON, with its end."""
        signatures = [
            {"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode()}
            for signature in self.signatures
        ]
        payload = base64.b64encode(self.payload).decode()
        value = {"payloadType": self.payload_type, "payload": payload, "signatures": signatures}
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Envelope:
        """Reads an envelope.

        Raises:
            ArtifactError: it is none; says which field is wrong.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ArtifactError("it is not valid JSON") from None
        if not isinstance(value, dict):
            raise ArtifactError("it is no envelope: a JSON object is expected")
        kind, signatures = value.get("payloadType"), value.get("signatures")
        if not isinstance(kind, str):
            raise ArtifactError("its payloadType is no text")
        if not isinstance(signatures, list) or not all(isinstance(entry, dict) for entry in signatures):
            raise ArtifactError("its signatures are no list of objects")
        payload = _decoded(value, "payload")
        return cls(kind, payload, tuple(_signature(entry) for entry in signatures))


@dataclass(frozen=True)
class SigningKey:
    """A private key, and what it is called."""

    keyid: str
    _key: PrivateKeyTypes

    def sign(self, payload_type: str, payload: bytes) -> Envelope:
        """An envelope with this key's signature."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        unsigned = Envelope(payload_type, payload)
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            sig = self._key.sign(unsigned.signed_bytes)
        elif isinstance(self._key, ec.EllipticCurvePrivateKey):
            sig = self._key.sign(unsigned.signed_bytes, ec.ECDSA(hashes.SHA256()))
        else:
            raise AssertionError("a key of another kind was refused when it was loaded")
        return Envelope(payload_type, payload, (Signature(self.keyid, sig),))

    def public(self) -> VerifyingKey:
        """Its public half."""
        return _verifying(self._key.public_key())


@dataclass(frozen=True)
class VerifyingKey:
    """A public key, and what it is called."""

    keyid: str
    _key: PublicKeyTypes

    def signed(self, envelope: Envelope) -> bool:
        """True where one of the envelope's signatures is this key's.

        A signature that names another key does not count; one that names none is tried.
        """
        return any(
            signature.keyid in ("", self.keyid) and self._valid(signature.sig, envelope.signed_bytes)
            for signature in envelope.signatures
        )

    def _valid(self, sig: bytes, data: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(sig, data)
            elif isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(sig, data, ec.ECDSA(hashes.SHA256()))
            else:
                raise AssertionError("a key of another kind was refused when it was loaded")
        except InvalidSignature:
            return False
        return True


def load_signing_key(path: Path) -> SigningKey:
    """Reads a private key.

    Raises:
        SigningError: the file cannot be read or holds no such key. Nothing of its content is repeated.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _read(path, "signing key")
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError:
        raise SigningError(
            f"the signing key {path} is protected by a password, which nobody could enter here; store it "
            "without one, readable by the service alone"
        ) from None
    except Exception:  # noqa: BLE001  the library's own errors, of many kinds, may quote the key
        raise SigningError(f"{path} is no private key that can be used; make {_KINDS}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey) and not (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise SigningError(f"the signing key {path} is of a kind that is not used; make {_KINDS}")
    return SigningKey(_verifying(key.public_key()).keyid, key)


def load_verifying_key(path: Path) -> VerifyingKey:
    """Reads a public key.

    Raises:
        BadArgument: the file cannot be read or holds no such key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = _read(path, "public key", BadArgument)
    if b"PRIVATE KEY" in text:
        raise BadArgument(
            f"{path} is a private key, and checking needs the public one: openssl pkey -in {path} -pubout"
        )
    try:
        key = load_pem_public_key(text)
    except Exception:  # noqa: BLE001  the library's own errors are of many kinds
        raise BadArgument(f"{path} is no public key that can be used; give {_KINDS}") from None
    if not isinstance(key, ed25519.Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise BadArgument(f"the public key {path} is of a kind that is not used; give {_KINDS}")
    return _verifying(key)


def _verifying(key: PublicKeyTypes) -> VerifyingKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(hashlib.sha256(der).hexdigest(), key)


def _read(path: Path, what: str, error: type[BadArgument | SigningError] = SigningError) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_KEY)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "not a file's name"
        raise error(f"cannot read the {what} {path}: {reason}") from None


def _signature(entry: Mapping[str, Any]) -> Signature:
    keyid = entry.get("keyid", "")
    if not isinstance(keyid, str):
        raise ArtifactError("the keyid of a signature is no text")
    return Signature(keyid, _decoded(entry, "sig"))


def _decoded(value: Mapping[str, Any], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str):
        raise ArtifactError(f"its {name} is no text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ArtifactError(f"its {name} is not base64") from None
