"""Secrets are kept out of texts, JSON values and streams, however the stream is cut."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.errors import BadArgument, StepFailed, add_note, notes_of
from trt_llm_pipeline.redaction import Redactor, check_token, secrets_of, token_of, without_tokens

TOKEN = "hf_AbCdEfGhIjKl"


class TestRedactor:
    def test_every_occurrence_is_replaced(self) -> None:
        assert Redactor([TOKEN])(f"a {TOKEN}{TOKEN} b") == "a [secret][secret] b"

    def test_of_two_secrets_that_begin_alike_the_longer_is_replaced(self) -> None:
        assert Redactor(["abcd", "abcdefgh"])("abcdefgh abcdef") == "[secret] [secret]ef"

    def test_a_secret_that_is_a_word_of_the_mask_does_not_nest(self) -> None:
        assert Redactor(["secret", TOKEN])(TOKEN) == "[secret]"

    def test_what_is_too_short_to_be_a_token_is_left_alone(self) -> None:
        assert Redactor(["a", "abc", "", None])("abc a bad cab") == "abc a bad cab"

    def test_the_newline_of_the_file_that_a_token_was_read_from_does_not_count(self) -> None:
        assert Redactor([f"{TOKEN}\n"])(f"'{TOKEN}'") == "'[secret]'"

    def test_a_secret_is_text_and_no_pattern(self) -> None:
        assert Redactor(["a.c*(["])("a.c*([ abcc") == "[secret] abcc"

    def test_text_that_is_no_unicode_passes(self) -> None:
        assert Redactor([TOKEN])(f"\udcff{TOKEN}") == "\udcff[secret]"

    def test_a_secret_cut_at_any_byte_never_shows(self) -> None:
        secret = "hf_größe_ß"
        stream = f"before {secret} after {secret}".encode()
        for cut in range(len(stream) + 1):
            redactor = Redactor([secret])
            first, held = redactor.bytes(stream[:cut], final=False)
            second, rest = redactor.bytes(held + stream[cut:], final=True)
            assert first + second == b"before [secret] after [secret]"
            assert rest == b""

    def test_byte_by_byte_nothing_of_a_secret_shows_early(self) -> None:
        redactor = Redactor([TOKEN])
        held, shown = b"", []
        for byte in TOKEN.encode():
            clean, held = redactor.bytes(held + bytes([byte]), final=False)
            shown.append(clean)
        assert b"".join(shown) == b"[secret]"

    @given(
        secrets=st.lists(st.text("ab", min_size=4, max_size=6), max_size=3),
        pieces=st.lists(st.text("ab", max_size=8).map(str.encode), max_size=8),
    )
    def test_in_pieces_it_says_what_it_says_of_the_whole(
        self, secrets: list[str], pieces: list[bytes]
    ) -> None:
        redactor = Redactor(secrets)
        held, shown = b"", b""
        for piece in pieces:
            clean, held = redactor.bytes(held + piece, final=False)
            shown += clean
            assert len(held) < 6
        shown += redactor.bytes(held, final=True)[0]
        assert shown.decode() == redactor(b"".join(pieces).decode())


class TestNames:
    def test_a_flag_of_a_library_is_no_secret(self) -> None:
        """Its value is a word that logs need."""
        assert secrets_of({"TOKENIZERS_PARALLELISM": "false", "X_TOKEN": "long-enough-to-be-one"}) == (
            "long-enough-to-be-one",
        )

    def test_the_first_name_of_the_token_wins_and_none_of_them_is_passed_on(self) -> None:
        env = {"HUGGING_FACE_HUB_TOKEN": "hf_second", "HF_TOKEN": "hf_first", "PATH": "/bin"}
        assert token_of(env) == "hf_first"
        assert token_of({"HF_TOKEN": ""}) is None
        assert without_tokens(env) == {"PATH": "/bin"}


class TestValues:
    def test_a_secret_that_json_escapes_is_replaced(self) -> None:
        secret = 'a"b\\c-and-more'
        told = {"argv": ["--token", secret], secret: [1, None, {"deep": f"x{secret}y"}]}
        assert Redactor([secret]).values(told) == {
            "argv": ["--token", "[secret]"],
            "[secret]": [1, None, {"deep": "x[secret]y"}],
        }

    def test_a_number_that_looks_like_a_secret_stays_a_number(self) -> None:
        assert Redactor(["1024"]).values({"size": 1024, "text": "1024"}) == {"size": 1024, "text": "[secret]"}


class TestInErrors:
    def test_the_text_and_the_notes_of_an_error_are_cleaned(self) -> None:
        error = StepFailed("build", f"it left 2 files in {TOKEN}", exit_code=1)
        add_note(error, f"{TOKEN} was moved")
        with pytest.raises(StepFailed) as caught, Redactor([TOKEN]).in_errors():
            raise error
        assert caught.value is error
        assert str(error) == "step build: it left 2 files in [secret]"
        assert notes_of(error) == ("[secret] was moved",)
        assert error.exit_code == 1

    def test_so_are_the_notes_of_an_interruption(self) -> None:
        error = KeyboardInterrupt()
        add_note(error, f"{TOKEN} stays")
        with pytest.raises(KeyboardInterrupt), Redactor([TOKEN]).in_errors():
            raise error
        assert notes_of(error) == ("[secret] stays",)


class TestOddShapes:
    @pytest.mark.parametrize("name", ["DATABASE_URL", "BLOB_CONNECTION_STRING", "DB_PASS", "GITHUB_PAT"])
    def test_names_of_secrets(self, name: str) -> None:
        value = "sixteen-letters-at-least"
        assert value in secrets_of({name: value})

    @pytest.mark.parametrize("name", ["DB_PASS", "PGPASSWORD", "SMTP_PASSWD"])
    def test_a_password_may_be_short_and_a_word_is_none(self, name: str) -> None:
        assert secrets_of({name: "hunter2!"}) == ("hunter2!",)
        assert not any(secrets_of({name: value}) for value in ("true", "disabled", "1024", "/run/secrets/pw"))

    def test_the_password_of_a_proxy(self) -> None:
        found = Redactor(secrets_of({"https_proxy": "http://me:pass%2Fw0rd@proxy.example:3128"}))
        assert found("pass%2Fw0rd pass/w0rd") == "[secret] [secret]"

    def test_a_password_that_is_a_word_is_hidden_only_in_its_address(self) -> None:
        found = Redactor(secrets_of({"http_proxy": "http://me:engine@proxy.example"}))
        assert (
            found("engine via http://me:engine@proxy.example") == "engine via http://me[secret]proxy.example"
        )

    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("http_proxy", "user:p4ssw0rd@proxy:3128", "user:[secret]@proxy:3128"),
            ("HTTPS_PROXY", "user:pw@proxy:3128", "user[secret]proxy:3128"),
            ("all_proxy", "t0k3n-of-one@proxy", "[secret]@proxy"),
            ("http_proxy", "http://t0k3n-of-one@proxy", "http://[secret]@proxy"),
            ("HF_ENDPOINT", "https://t0k3n-of-one@hub.example/x", "https://[secret]@hub.example/x"),
            ("HF_ENDPOINT", "https://t0k3n-of-one:@hub.example/x", "https://[secret]:@hub.example/x"),
            ("HF_ENDPOINT", "http://TOKEN@hub.example", "http://[secret]hub.example"),
            ("MIRRORS", "http://a:f1rst@x, http://b:s3cond@y", "http://a:[secret]@x, http://b:[secret]@y"),
        ],
    )
    def test_what_is_before_the_host_of_an_address(self, name: str, value: str, shown: str) -> None:
        assert Redactor(secrets_of({name: value}))(value) == shown

    @pytest.mark.parametrize(
        "value", ["ssh://git@host.example/x", "someone@host.example", "a@b:c", "http://h/a@b"]
    )
    def test_a_name_before_an_at_sign_is_none(self, value: str) -> None:
        assert secrets_of({"SOMETHING": value}) == ()

    @pytest.mark.parametrize(
        "value", ["/JalrXUtnFEMIK7MDENG/bPxRfiCYEXAMPLEKEYa", "//alrXUtnFEMIK7MDENGabPxRfi"]
    )
    def test_a_key_may_begin_as_a_path_does(self, value: str) -> None:
        assert secrets_of({"AWS_SECRET_ACCESS_KEY": value}) == (value,)

    def test_a_path_is_where_a_secret_can_be_found(self, tmp_path: Path) -> None:
        for path in (
            tmp_path,
            tmp_path / "not" / "there",
            "/run/secrets/not-yet-there",
            "/",
            "/\0key-of-one-here",
        ):
            is_key = "\0" in str(path)
            assert bool(secrets_of({"SIGNING_KEY": str(path)})) == is_key
        assert secrets_of({"SIGNING_KEY_FILE": "/no/such/place", "SSH_KEY_PATH": "/no/such/place"}) == ()

    def test_each_line_of_a_private_key(self) -> None:
        lines = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"]
        key = "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"])
        assert Redactor([key])(f"{lines[1]} then {lines[0]}") == "[secret] then [secret]"
        assert Redactor([key])("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"

    @pytest.mark.parametrize("secret", ['pa"ss\\wörd/+=& more', TOKEN, "tab\there-and\nthere"])
    def test_however_a_program_writes_it(self, secret: str) -> None:
        redactor = Redactor([secret])
        spelt = [quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]]
        spelt += [json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]]
        spelt += [re.sub("%..", lambda code: code[0].lower(), text) for text in spelt[:3]]
        spelt += [json.dumps(spelt[3])[1:-1], json.dumps(spelt[4], ensure_ascii=False)[1:-1]]
        for text in spelt:
            assert redactor(text) == "[secret]"

    @pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
    @pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
    def test_in_base64_wherever_it_begins(self, before: str, encode: Callable[[bytes], bytes]) -> None:
        shown = Redactor([TOKEN])(encode(f"{before}{TOKEN}".encode()).decode())
        assert "[secret]" in shown
        # Of its ends no more than a letter and the bits of two can be left.
        assert len(shown.replace("[secret]", "")) <= len(encode(before.encode())) + 4

    @pytest.mark.parametrize(
        "token",
        ["hf_a\nb", "hf_a\tb", "hf_größe", "hf_\udcff", "build", "engine", "1024", " ", "hf a", "a\0b"],
    )
    def test_what_cannot_be_a_token_is_refused_and_not_shown(self, token: str) -> None:
        with pytest.raises(BadArgument, match=r"^MY_TOKEN .* so it cannot be a token; copy it") as raised:
            check_token(token, "MY_TOKEN")
        assert raised.value.__cause__ is None
        assert not token.strip() or repr(token)[1:-1] not in str(raised.value).replace("account's", "")

    def test_space_around_a_token_does_not_count(self) -> None:
        assert check_token(f" {TOKEN}\n", "MY_TOKEN") == TOKEN
