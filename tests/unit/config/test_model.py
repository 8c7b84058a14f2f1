"""The build config: the quick start's as its users wrote it, what each value means, and the schema."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.conftest import FIXTURES, ROOT
from trt_llm_pipeline.config import BuildConfig, examine, load, loads
from trt_llm_pipeline.config.schema import json_schema
from trt_llm_pipeline.errors import ConfigError
from trt_llm_pipeline.plan.command import render

QUICK_START = FIXTURES / "quick_start.yaml"
EXAMPLE = ROOT / "examples" / "gpt" / "config.yaml"
HEAD = "model_id: owner/name\nexample_name: gpt\n"


def build_step(lines: str) -> str:
    return f"{HEAD}build:\n  script: build.py\n{lines}"


class TestQuickStart:
    def test_it_means_what_it_says(self) -> None:
        config = load(QUICK_START)
        assert config.model_id == "sshleifer/tiny-gpt2"
        assert config.example_name == "gpt"
        assert [name for name, _ in config.steps()] == ["convert_to_ft", "build"]
        convert, build = config.convert_to_ft, config.build
        assert convert is not None
        assert (convert.executable, convert.script) == ("python", "hf_gpt_convert.py")
        assert convert.output_dir == "./c-model/gpt2/1-gpu"
        assert render(convert.args, str).argv == (
            *("--in-file", "/src/models/sshleifer/tiny-gpt2"),
            *("--out-dir", "./c-model/gpt2"),
            *("--tensor-parallelism", "1"),
            *("--storage-type", "float16"),
        )
        assert (build.executable, build.script, build.output_dir) == (
            "python",
            "build.py",
            "./engine_outputs/",
        )
        assert render(build.args, str).argv == (
            *("--model_dir", "./c-model/gpt2/1-gpu"),
            *("--output_dir", "./engine_outputs/"),
            "--use_gpt_attention_plugin",
            "--remove_input_padding",
        )
        unset = (
            config.quantize,
            config.revision,
            config.weight_format,
            config.model_tar_url,
            config.hf_token,
        )
        assert unset == (None,) * 5
        assert (convert.timeout, build.timeout) == (None, None)

    def test_the_example_for_users_says_the_same(self) -> None:
        assert load(EXAMPLE).model_dump() == load(QUICK_START).model_dump()

    def test_its_lines_are_known(self) -> None:
        config = load(QUICK_START)
        mistake = config.mistake("is odd", "build", "args", "model_dir")
        lines = QUICK_START.read_text().splitlines()
        assert mistake.line is not None
        assert lines[mistake.line - 1] == "    model_dir: ./c-model/gpt2/1-gpu"
        assert mistake.render("c.yaml") == f"c.yaml:{mistake.line}: build.args.model_dir: is odd"


class TestArgs:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("0", "0"),
            ("0.50", "0.50"),
            ("1e-3", "1e-3"),
            ("on", "on"),
            ("yes", "yes"),
            ("No", "No"),
            ("007", "007"),
            ("1_000", "1_000"),
            ("2024-01-01", "2024-01-01"),
            (".inf", ".inf"),
            ("[]", []),
            ("[1, 'true', ~]", ["1", "true", "~"]),
            ("", True),
            ("~", True),
            ("null", True),
            ("true", True),
            ("True", True),
            ("false", False),
            ("FALSE", False),
            ("tRUE", "tRUE"),
            ("'true'", "true"),
            ("'false'", "false"),
            ("'null'", "null"),
            ("''", ""),
            ('"a\\nb"', "a\nb"),
            ("|-\n      a\n      b", "a\nb"),
            ("!!str true", "true"),
        ],
    )
    def test_are_the_text_of_the_author_or_a_flag(self, written: str, value: object) -> None:
        assert loads(build_step(f"  args:\n    key: {written}\n")).build.args == {"key": value}

    def test_keep_their_order_and_spelling(self) -> None:
        config = loads(build_step("  args: {z-a: 1, --z_a: 2, -tp: 3, A.b: 4}\n"))
        assert list(config.build.args) == ["z-a", "--z_a", "-tp", "A.b"]

    @pytest.mark.parametrize("key", ["''", "'a b'", "'a=b'", "---x", "'--'", "'-'", "$(x)", "ü", '"a\\n"'])
    def test_a_key_that_is_no_option_is_refused(self, key: str) -> None:
        with pytest.raises(ConfigError, match="is not a valid option name"):
            loads(build_step(f"  args:\n    {key}: 1\n"))


class TestTopLevel:
    @pytest.mark.parametrize("model_id", ["gpt2", "a/b", "A-1/b.c_d", "_x/y_", "0/0", "a" * 96, "12345"])
    def test_model_ids_of_the_hub_are_accepted(self, model_id: str) -> None:
        text = build_step("").replace("owner/name", model_id)
        assert loads(text).model_id == model_id

    @pytest.mark.parametrize(
        "model_id",
        [
            *(
                "../x",
                "a/b/c",
                "/a",
                "a/",
                "a//b",
                ".",
                "..",
                "a/..",
                "-a",
                "a-",
                "a..b",
                "a--b",
                "a b",
                "a\\b",
            ),
            *("a\\b", "a" * 97, "a.git", "ä/b", "a/b\n", "a:b", "a@b", "~/x", "${model_dir}"),
        ],
    )
    def test_other_model_ids_are_refused(self, model_id: str) -> None:
        with pytest.raises(ConfigError, match="is not a valid model id; write it as on the Hub"):
            loads(build_step("").replace("owner/name", json.dumps(model_id)))

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [("90", 90), ("1.5", 1.5), ("90s", 90), ("2 m", 120), ("1.5h", 5400), ("720h", 2592000)],
    )
    def test_durations(self, written: str, seconds: float) -> None:
        assert loads(build_step(f"  timeout: {written}\n")).build.timeout == seconds

    @pytest.mark.parametrize(
        "written", ["0", "-1", "1d", "1h30m", "inf", "nan", "1e3", "721h", "9" * 400, "[1]", "''"]
    )
    def test_no_durations(self, written: str) -> None:
        with pytest.raises(ConfigError, match=r"build\.timeout: .* (not a valid duration|at most 30 days)"):
            loads(build_step(f"  timeout: {written}\n"))

    def test_mistakes_call_a_step_as_the_text_does(self) -> None:
        for name in ("convert_checkpoint", "convert_to_ft"):
            text = build_step("") + f"{name}:\n  script: c.py\n  timeout: never\n"
            assert [mistake.key for mistake in examine(text).mistakes] == [f"{name}.timeout"]
            config = loads(text.replace("never", "2h"))
            assert config.mistake("is wrong", "convert_to_ft", "args").key == f"{name}.args"

    def test_convert_checkpoint_is_another_name_for_the_first_step(self) -> None:
        config = loads(build_step("") + "convert_checkpoint:\n  script: convert_checkpoint.py\n")
        assert [(name, step.script) for name, step in config.steps()] == [
            ("convert_to_ft", "convert_checkpoint.py"),
            ("build", "build.py"),
        ]
        assert config.source.line("convert_to_ft", "script") == 6

    def test_steps_run_in_their_order_however_they_are_written(self) -> None:
        text = build_step("") + "quantize: {script: q.py}\nconvert_to_ft: {script: c.py}\n"
        assert [name for name, _ in loads(text).steps()] == ["convert_to_ft", "quantize", "build"]

    def test_an_empty_optional_step_is_left_out(self) -> None:
        assert [name for name, _ in loads(build_step("") + "quantize:\n").steps()] == ["build"]

    def test_a_token_is_held_as_a_secret(self) -> None:
        config = loads(build_step("") + "hf_token: hf_MARKED\n")
        assert config.hf_token is not None
        assert config.hf_token.get_secret_value() == "hf_MARKED"
        assert "MARKED" not in repr(config) + str(config) + config.model_dump_json() + str(
            config.model_dump()
        )

    @pytest.mark.parametrize("written", ["[hf_MARKED]", "{a: hf_MARKED}", "hf_MARKED\nhf_token: hf_MARKED"])
    def test_a_token_is_in_no_message(self, written: str) -> None:
        with pytest.raises(ConfigError) as caught:
            loads(build_step("") + f"hf_token: {written}\n")
        assert "MARKED" not in str(caught.value)

    @pytest.mark.parametrize("written", ["5", "secretly", '"hf_a b"', '"hf_a\\nb"'])
    def test_what_cannot_be_a_token_is_a_mistake_with_its_line(self, written: str) -> None:
        text = build_step("") + f"hf_token: {written}\n"
        with pytest.raises(ConfigError) as caught:
            loads(text, "a.yaml")
        line = len(text.splitlines())
        assert str(caught.value).startswith(f"a.yaml:{line}: hf_token: ")
        assert str(caught.value).endswith("cannot be a token; copy it again from the account's settings")
        assert "secretly" not in str(caught.value)

    def test_nothing_can_be_changed_afterwards(self) -> None:
        config = load(QUICK_START)
        with pytest.raises(ValidationError, match="frozen"):
            config.model_id = "other"  # type: ignore[misc]


class TestWhatCanBeCheckedOfAWrongConfig:
    def test_what_is_wrong_is_left_out_and_the_rest_is_there(self) -> None:
        loaded = examine(build_step("  timeout: soon\n  args: {a: 1, b c: 2}\n") + "quantize: {timeout: 1}\n")
        assert loaded.config is not None
        assert loaded.config.build.args == {"a": "1"}
        assert loaded.config.build.timeout is None
        assert loaded.config.quantize is None
        assert loaded.config.wrong == {"build.timeout", "build.args", "quantize"}
        assert [mistake.line for mistake in loaded.mistakes] == [5, 6, 7]

    def test_what_must_be_there_is_stood_in_for(self) -> None:
        loaded = examine("model_id: a/b/c\nquantize: {script: q.py}\n")
        assert loaded.config is not None
        assert {"model_id", "example_name", "build"} <= loaded.config.wrong
        assert loaded.config.quantize is not None
        assert len(loaded.mistakes) == 3

    def test_a_good_config_has_nothing_wrong(self) -> None:
        loaded = examine(QUICK_START.read_text())
        assert loaded.mistakes == ()
        assert loaded.config is not None
        assert loaded.config.wrong == frozenset()

    def test_an_error_shows_the_first_mistakes_and_counts_the_rest(self) -> None:
        with pytest.raises(ConfigError) as caught:
            loads(build_step("") + "".join(f"key{number}: x\n" for number in range(200)), "c.yaml")
        assert len(caught.value.mistakes) == 200
        lines = str(caught.value).splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("200 mistakes in c.yaml:", "and 150 more", 52)


def test_the_schema_knows_every_key_and_describes_it() -> None:
    schema = json_schema()
    assert schema["properties"].pop("convert_checkpoint")
    step = schema["$defs"]["StepConfig"]
    for fields, model in ((schema, BuildConfig), (step, BuildConfig.model_fields["build"].annotation)):
        assert model is not None
        assert set(fields["properties"]) == set(model.model_fields)
        assert all(facts["description"] for facts in fields["properties"].values())
        assert fields["additionalProperties"] is False
    assert schema["required"] == ["model_id", "example_name", "build"]


class TestCheck:
    """`check:` is a word or a mapping."""

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("", (True, False, False, None)),
            ("check: on\n", (True, False, False, None)),
            ("check: off\n", (False, False, False, None)),
            ("check: required\n", (True, True, False, None)),
            ("check: {reference: true}\n", (True, False, True, None)),
            ("check:\n  required: true\n  timeout: 5m\n", (True, True, False, 300)),
        ],
    )
    def test_written(self, written: str, expected: tuple[object, ...]) -> None:
        check = loads(f"model_id: a\nexample_name: gpt\n{written}build: {{executable: trtllm-build}}\n").check
        assert (check.enabled, check.required, check.reference, check.timeout) == expected

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("check: never", "check: 'never' is not allowed; write on, off, required, or a mapping"),
            ("check:", "check: is empty; write on, off, required, or a mapping"),
            ("check: [on]", "check: ['on'] is not allowed; write on, off, required, or a mapping"),
            ("check: {refernce: true}", "check.refernce: is not a known key; did you mean reference?"),
            ("check: {reference: maybe}", "check.reference: 'maybe' must be true or false"),
            ("check: {timeout: soon}", "check.timeout: 'soon'"),
        ],
    )
    def test_wrong(self, written: str, message: str) -> None:
        text = f"model_id: a\nexample_name: gpt\n{written}\nbuild: {{executable: trtllm-build}}\n"
        with pytest.raises(ConfigError) as caught:
            loads(text)
        assert str(caught.value).startswith(f"config:3: {message}")


@pytest.mark.parametrize(
    "url", ["http://[::1/x.tar", "http://a..b/x.tar?s3cret", "http://u:s3cret@h:x/m.tar"]
)
def test_a_tar_at_an_address_that_is_none_is_a_mistake_with_its_line(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^config:2: model_tar_url: .* is not a valid address: .*; check it"
    ) as caught:
        loads(
            f"model_id: owner/name\nmodel_tar_url: '{url}'\nexample_name: gpt\nbuild:\n  script: build.py\n"
        )
    assert "s3cret" not in str(caught.value)
