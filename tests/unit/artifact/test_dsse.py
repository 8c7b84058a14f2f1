"""Signed envelopes: that another implementation agrees, and what no envelope and no key may be."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from trt_llm_pipeline.artifact.dsse import Envelope, Signature, load_signing_key, load_verifying_key
from trt_llm_pipeline.errors import ArtifactError, BadArgument, SigningError

KINDS = {
    "ed25519": ["-algorithm", "ed25519"],
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
}
TYPE = "application/vnd.in-toto+json"


def make_key(folder: Path, *options: str, name: str = "key") -> tuple[Path, Path]:
    """A private and a public key, by OpenSSL."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", *options, "-out", private], check=True, capture_output=True)
    told = ["openssl", "pkey", "-in", private, "-passin", "pass:x", "-pubout", "-out", public]
    subprocess.run(told, check=True, capture_output=True)
    return private, public


@pytest.fixture(params=list(KINDS))
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    return make_key(tmp_path, *KINDS[request.param])


class TestAgreement:
    """Both directions, with an implementation that shares no code."""

    def test_the_other_accepts_what_was_signed(self, keys: tuple[Path, Path]) -> None:
        key = load_signing_key(keys[0])
        line = json.loads(key.sign(TYPE, b'{"a": "\xc3\xa9"}').as_json_line())
        other = SSlibKey.from_crypto(load_pem_public_key(keys[1].read_bytes()), keyid=key.keyid)
        assert list(OtherEnvelope.from_dict(line).verify([other], 1)) == [key.keyid]
        line["payload"] = base64.b64encode(b"{}").decode()
        line["signatures"] = json.loads(key.sign(TYPE, b"{ }").as_json_line())["signatures"]
        with pytest.raises(VerificationError):
            OtherEnvelope.from_dict(line).verify([other], 1)

    def test_what_the_other_signed_is_accepted(self, keys: tuple[Path, Path]) -> None:
        key = load_verifying_key(keys[1])
        private: Any = load_pem_private_key(keys[0].read_bytes(), None)
        public = SSlibKey.from_crypto(private.public_key(), keyid=key.keyid)
        other = OtherEnvelope(b"payload", TYPE, {})
        other.sign(CryptoSigner(private, public))
        envelope = Envelope.parse(json.dumps(other.to_dict()).encode())
        assert (envelope.payload_type, envelope.payload) == (TYPE, b"payload")
        assert key.signed(envelope)

    def test_a_key_is_called_by_the_hash_that_openssl_gives(self, keys: tuple[Path, Path]) -> None:
        der = ["openssl", "pkey", "-pubin", "-in", str(keys[1]), "-outform", "DER"]
        found = subprocess.run(
            ["openssl", "dgst", "-sha256", "-r"],
            input=subprocess.run(der, check=True, capture_output=True).stdout,
            check=True,
            capture_output=True,
        )
        keyid = found.stdout.decode().split()[0]
        assert load_signing_key(keys[0]).keyid == load_verifying_key(keys[1]).keyid == keyid


class TestSignatures:
    """What a signature holds for."""

    def test_one_changed_byte_or_type_or_name_or_signature_ends_it(self, keys: tuple[Path, Path]) -> None:
        key = load_signing_key(keys[0])
        public = key.public()
        good = key.sign(TYPE, b"payload")
        (signature,) = good.signatures
        assert public.signed(good)
        assert public.signed(Envelope(TYPE, b"payload", (Signature("", signature.sig),)))
        bad = [
            Envelope(TYPE, b"Payload", good.signatures),
            Envelope(TYPE + "x", b"payload", good.signatures),
            Envelope(TYPE[:-1], b"n payload", good.signatures),
            Envelope(TYPE, b"payload", (Signature("0" * 64, signature.sig),)),
            Envelope(TYPE, b"payload", (Signature(signature.keyid, b""),)),
            Envelope(
                TYPE,
                b"payload",
                (Signature(signature.keyid, signature.sig[:-1] + bytes([signature.sig[-1] ^ 1])),),
            ),
            Envelope(TYPE, b"payload"),
        ]
        assert [public.signed(envelope) for envelope in bad] == [False] * len(bad)

    def test_one_good_signature_among_others_is_enough(self, tmp_path: Path) -> None:
        one = load_signing_key(make_key(tmp_path, *KINDS["ed25519"], name="one")[0])
        two = load_signing_key(make_key(tmp_path, *KINDS["p256"], name="two")[0])
        both = one.sign(TYPE, b"x").signatures + two.sign(TYPE, b"x").signatures
        envelope = Envelope(TYPE, b"x", both)
        assert one.public().signed(envelope)
        assert two.public().signed(envelope)
        assert not two.public().signed(one.sign(TYPE, b"x"))


class TestKeys:
    """Which keys are refused, in words that hold nothing of the key."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["-algorithm", "RSA"], "is of a kind that is not used"),
            (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "is of a kind that is not used"),
            (["-algorithm", "X25519"], "is of a kind that is not used"),
            (["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"], "is protected by a password"),
        ],
    )
    def test_other_kinds_of_key(self, tmp_path: Path, options: list[str], message: str) -> None:
        private, public = make_key(tmp_path, *options)
        with pytest.raises(SigningError, match=message) as caught:
            load_signing_key(private)
        assert str(private) in str(caught.value)
        if "password" not in message:
            with pytest.raises(BadArgument, match=message):
                load_verifying_key(public)

    @pytest.mark.parametrize("text", [b"", b"s3cret", b"-----BEGIN PRIVATE KEY-----\ns3cret\n"])
    def test_what_is_no_key_is_not_repeated(self, tmp_path: Path, text: bytes) -> None:
        path = tmp_path / "key"
        path.write_bytes(text)
        for load in (load_signing_key, load_verifying_key):
            with pytest.raises((SigningError, BadArgument)) as caught:
                load(path)
            assert "s3cret" not in str(caught.value)

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        for path in (tmp_path / "gone", tmp_path, Path("nul\0byte")):
            with pytest.raises(SigningError, match="cannot read the signing key"):
                load_signing_key(path)

    def test_the_private_key_is_not_taken_for_the_public_one(self, keys: tuple[Path, Path]) -> None:
        with pytest.raises(BadArgument, match=r"is a private key.*openssl pkey -in .* -pubout"):
            load_verifying_key(keys[0])
        with pytest.raises(SigningError, match="is no private key that can be used"):
            load_signing_key(keys[1])


class TestEnvelopes:
    """What is read, and what is no envelope."""

    def test_what_was_written_is_read_again(self) -> None:
        envelope = Envelope(TYPE, b"\xff\0", (Signature("k", b"\0s"), Signature("", b"")))
        line = envelope.as_json_line()
        assert Envelope.parse(line) == envelope
        assert line.count(b"\n") == 1

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("payloadType", None, "payloadType is no text"),
            ("payloadType", 7, "payloadType is no text"),
            ("payload", None, "payload is no text"),
            ("payload", "%%%", "payload is not base64"),
            ("payload", "é", "payload is not base64"),
            ("signatures", None, "signatures are no list"),
            ("signatures", {"sig": ""}, "signatures are no list"),
            ("signatures", ["x"], "signatures are no list"),
            ("signatures", [{"keyid": ""}], "sig is no text"),
            ("signatures", [{"keyid": 1, "sig": ""}], "keyid of a signature is no text"),
            ("signatures", [{"keyid": "", "sig": "a"}], "sig is not base64"),
        ],
    )
    def test_every_field_is_looked_at(self, field: str, value: Any, message: str) -> None:
        good = {"payloadType": TYPE, "payload": "", "signatures": []}
        assert Envelope.parse(json.dumps(good).encode()) == Envelope(TYPE, b"")
        with pytest.raises(ArtifactError, match=message):
            Envelope.parse(json.dumps({**good, field: value}).encode())

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"[" * 100_000, b"\xff"])
    def test_what_is_no_object(self, text: bytes) -> None:
        with pytest.raises(ArtifactError, match=r"is not valid JSON|is no envelope"):
            Envelope.parse(text)
