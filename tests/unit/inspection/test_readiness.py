"""Readiness for cog-triton: what each kind of archive is told, and what has to be set for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.artifact.reader import NO_MANIFEST
from trt_llm_pipeline.inspection import Check
from trt_llm_pipeline.inspection.checks import log_lines, settings, verdict, verdict_lines
from trt_llm_pipeline.inspection.readiness import ArchiveFacts, readiness
from trt_llm_pipeline.inspection.serving import compute_capability, release

H100 = {"name": "NVIDIA H100", "compute_capability": "9.0"}
A10 = {"name": "NVIDIA A10", "compute_capability": "8.6"}
LLAMA = {
    "version": "0.9.0",
    "pretrained_config": {
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "max_position_embeddings": 4096,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    },
    "build_config": {"max_input_len": 3072, "max_output_len": 1024},
}
TWO_RANKS = {**LLAMA, "pretrained_config": {**LLAMA["pretrained_config"], "mapping": {"tp_size": 2}}}
TOKENIZER = {
    "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"},
    "tokenizer.json": {"added_tokens": [{"id": 2, "content": "</s>"}], "model": {"merges": ["a b"]}},
}
MANIFEST = {"toolchain": {"name": "tensorrt_llm", "version": "0.9.0"}, "gpus": [H100]}


def facts(
    config: Mapping[str, Any] | None = LLAMA,
    engines: tuple[str, ...] = ("rank0.engine",),
    tokenizer: Mapping[str, Any] = TOKENIZER,
    manifest: Mapping[str, Any] | None = MANIFEST,
    more: tuple[str, ...] = (),
    **fields: Any,
) -> ArchiveFacts:
    """A good Llama engine of 0.9.0 for an H100, but for what a test changes."""
    contents = {name: json.dumps(value).encode() for name, value in tokenizer.items()}
    if config is not None:
        contents["config.json"] = json.dumps(config).encode()
    files = {name: len(data) for name, data in contents.items()}
    files |= dict.fromkeys((*engines, *more), 1000)
    if manifest is not None:
        files["manifest.json"] = 100
    return ArchiveFacts("engine.tar", files, contents, manifest, **{"problems": (), **fields})


def of(checks: tuple[Check, ...], name: str) -> Check:
    (found,) = (check for check in checks if check.name == name)
    return found


def test_a_good_engine_for_what_will_serve_it_is_all_right() -> None:
    checks = readiness(facts(), "sm90", "0.9.0", 1)
    assert {check.status for check in checks} == {"ok"}
    assert [check.name for check in checks] == [
        "layout",
        "ranks",
        "sequence length",
        "tokenizer",
        "end of sequence",
        "TensorRT-LLM",
        "GPU",
        "extraction",
        "checksums",
    ]
    assert settings(checks) == {}
    assert verdict(checks) == "ready"
    assert verdict_lines(checks) == ["ready"]


def test_an_engine_that_was_not_read_back_gets_no_verdict_on_its_bytes() -> None:
    names = [check.name for check in readiness(facts(problems=None))]
    assert "extraction" not in names
    assert "checksums" not in names


@pytest.mark.parametrize("text", ["sm90", "SM_90", "sm_90a", "9.0", "90", " compute_90 "])
def test_compute_capability_is_read_however_it_is_written(text: str) -> None:
    assert compute_capability(text) == "9.0"
    assert of(readiness(facts(), text), "GPU").status == "ok"


@pytest.mark.parametrize("text", ["", "hopper", "9", "9.0.1", "sm"])
def test_what_is_no_compute_capability_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write it like sm90"):
        compute_capability(text)


def test_what_is_no_release_is_refused() -> None:
    with pytest.raises(ValueError, match=r"write it like 0\.9\.0"):
        release("latest")
    with pytest.raises(ValueError, match="latest"):
        readiness(facts(), trt_llm="latest")


class TestLayout:
    """Everything at the top, or else where it is and what to do."""

    def test_a_wrapper_folder_is_named(self) -> None:
        wrapped = ArchiveFacts("engine.tar", {"out/config.json": 3, "out/rank0.engine": 9}, {}, None)
        checks = readiness(wrapped)
        assert of(checks, "layout").status == "problem"
        assert "folder out/" in of(checks, "layout").message
        assert verdict(checks) == "not ready"

    def test_no_engine_at_all(self) -> None:
        check = of(readiness(facts(engines=())), "layout")
        assert (check.status, "no .engine file" in check.message) == ("problem", True)

    def test_no_config(self) -> None:
        checks = readiness(facts(config=None))
        assert of(checks, "layout").status == "problem"
        assert of(checks, "config.json").status == "problem"

    def test_encoder_and_decoder_are_not_for_cog_triton(self) -> None:
        both = facts(config=None, engines=("encoder/rank0.engine", "decoder/rank0.engine"))
        assert "encoder-decoder" in of(readiness(both), "layout").message

    @pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
    def test_a_config_that_is_no_object(self, text: bytes) -> None:
        good = facts()
        broken = ArchiveFacts(good.name, good.files, {**good.contents, "config.json": text}, good.manifest)
        assert of(readiness(broken), "config.json").status == "problem"


class TestRanks:
    """As many engine files as config.json promises, and as WORLD_SIZE says."""

    def test_more_than_one_rank_needs_world_size_set(self) -> None:
        checks = readiness(facts(TWO_RANKS, ("rank0.engine", "rank1.engine")))
        assert of(checks, "ranks").status == "warning"
        assert settings(checks) == {"WORLD_SIZE": "2"}
        assert verdict(checks) != "not ready"

    def test_the_right_world_size_is_all_right(self) -> None:
        checks = readiness(facts(TWO_RANKS, ("rank0.engine", "rank1.engine")), world_size=2)
        assert of(checks, "ranks").status == "ok"
        assert settings(checks) == {"WORLD_SIZE": "2"}

    def test_the_wrong_world_size_is_a_problem_with_the_right_one(self) -> None:
        check = of(readiness(facts(), world_size=4), "ranks")
        assert check.status == "problem"
        assert "WORLD_SIZE will be 4" in check.message
        assert "WORLD_SIZE=1" in check.message

    @pytest.mark.parametrize(
        ("engines", "said"),
        [
            (("rank0.engine",), "rank 1 (rank1.engine) is missing"),
            (("rank0.engine", "rank1.engine", "rank2.engine"), "rank2.engine, left from another run"),
        ],
    )
    def test_missing_and_stray_ranks_are_named(self, engines: tuple[str, ...], said: str) -> None:
        check = of(readiness(facts(TWO_RANKS, engines)), "ranks")
        assert check.status == "problem"
        assert said in check.message

    def test_a_config_of_unknown_shape_leaves_ranks_unknown(self) -> None:
        assert of(readiness(facts({"engine": {}})), "ranks").status == "unknown"


class TestSequenceLength:
    """MAX_SEQUENCE_LENGTH, where config.json does not say it as cog-triton reads it."""

    @staticmethod
    def to_071(**builder: Any) -> ArchiveFacts:
        config = {"builder_config": {"name": "gpt", "precision": "float16", **builder}}
        return facts(config, ("gpt_float16_tp1_rank0.engine",))

    @pytest.mark.parametrize(
        ("builder", "value"),
        [
            ({"max_position_embeddings": 1024, "max_input_len": 200, "max_output_len": 200}, "400"),
            ({"max_position_embeddings": 1024, "max_input_len": 1000, "max_output_len": 1000}, "1024"),
            ({"max_position_embeddings": 1024}, "1024"),
            ({"max_input_len": 200, "max_output_len": 56}, "256"),
        ],
    )
    def test_0_7_1_needs_it_set_to_what_engine_and_model_both_take(
        self, builder: dict[str, int], value: str
    ) -> None:
        checks = readiness(self.to_071(**builder))
        assert of(checks, "sequence length").status == "warning"
        assert settings(checks) == {"MAX_SEQUENCE_LENGTH": value}

    def test_0_7_1_without_any_length_says_so(self) -> None:
        checks = readiness(self.to_071(max_input_len=True, max_position_embeddings="1024"))
        assert "nowhere how many tokens" in of(checks, "sequence length").message
        assert settings(checks) == {}

    def test_an_engine_built_for_less_than_the_model_takes(self) -> None:
        short = {**LLAMA, "build_config": {"max_seq_len": 2048, "max_input_len": 1024}}
        checks = readiness(facts(short))
        assert of(checks, "sequence length").status == "warning"
        assert settings(checks) == {"MAX_SEQUENCE_LENGTH": "2048"}


class TestTokenizer:
    """Judged by the files that its class reads."""

    @pytest.mark.parametrize(
        ("tokenizer", "more", "said"),
        [
            ({}, (), "there is none beside the engine"),
            ({}, ("tokenizer/tokenizer.json",), "tokenizer/tokenizer.json is in a folder"),
            ({"tokenizer.json": {}}, (), "there is no tokenizer_config.json"),
            ({"tokenizer.json": {}, "tokenizer_config.json": {}}, (), "has no tokenizer_class"),
            ({"tokenizer.json": {}, "tokenizer_config.json": []}, (), "is not a JSON object"),
            (
                {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}, "vocab.json": {}},
                (),
                "needs tokenizer.json (or merges.txt)",
            ),
            (
                {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}, "vocab.json": {}},
                ("merges.txt",),
                "needs tokenizer.json, which is missing",
            ),
            (
                {"tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}, "tokenizer.json": {}},
                (),
                "known only to transformers 5",
            ),
            (
                {
                    "tokenizer_config.json": {
                        "tokenizer_class": "QWenTokenizer",
                        "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
                    }
                },
                ("qwen.tiktoken",),
                "the repository's own Python code",
            ),
        ],
    )
    def test_one_that_will_not_load(self, tokenizer: Any, more: tuple[str, ...], said: str) -> None:
        check = of(readiness(facts(tokenizer=tokenizer, more=more)), "tokenizer")
        assert check.status == "problem"
        assert said in check.message

    @pytest.mark.parametrize(
        ("name", "more"),
        [
            ("GPT2Tokenizer", ("vocab.json", "merges.txt")),
            ("LlamaTokenizer", ("tokenizer.model",)),
            ("LlamaTokenizerFast", ("tokenizer.json",)),
            ("T5Tokenizer", ("spiece.model",)),
            ("BloomTokenizerFast", ("tokenizer.json",)),
        ],
    )
    def test_one_with_what_its_class_needs(self, name: str, more: tuple[str, ...]) -> None:
        config = {"tokenizer_config.json": {"tokenizer_class": name}}
        check = of(readiness(facts(tokenizer=config, more=more)), "tokenizer")
        assert (check.status, name in check.message) == ("ok", True)

    def test_an_unknown_class_is_unknown(self) -> None:
        config = {"tokenizer_config.json": {"tokenizer_class": "ErnieTokenizer"}}
        checks = readiness(facts(tokenizer=config, more=("vocab.txt",)))
        assert of(checks, "tokenizer").status == "unknown"
        assert of(checks, "end of sequence").status == "unknown"

    def test_merges_as_pairs_are_only_for_later_transformers(self) -> None:
        paired = {**TOKENIZER, "tokenizer.json": {"model": {"merges": [["a", "b"]]}}}
        assert of(readiness(facts(tokenizer=paired)), "tokenizer").status == "warning"


class TestEndOfSequence:
    """END_ID and PAD_ID are 2 at cog-triton unless they are set."""

    @pytest.mark.parametrize(
        "where",
        [
            {"tokenizer.json": {"added_tokens": [{"id": 50256, "content": "<|endoftext|>"}]}},
            {"tokenizer.json": {"model": {"vocab": {"<|endoftext|>": 50256}}}},
            {"vocab.json": {"<|endoftext|>": 50256}, "tokenizer.json": {}},
            {"added_tokens.json": {"<|endoftext|>": 50256}, "tokenizer.json": {}},
            {"generation_config.json": {"eos_token_id": 50256}, "tokenizer.json": {}},
            {"generation_config.json": {"eos_token_id": [50256]}, "tokenizer.json": {}},
        ],
    )
    def test_another_number_has_to_be_set(self, where: dict[str, Any]) -> None:
        config = {"tokenizer_class": "GPT2Tokenizer"}
        checks = readiness(facts(tokenizer={"tokenizer_config.json": config, **where}))
        assert of(checks, "end of sequence").status == "warning"
        assert settings(checks) == {"END_ID": "50256", "PAD_ID": "50256"}

    def test_an_added_tokens_decoder_knows_the_number(self) -> None:
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": {"content": "<|eot_id|>"},
            "added_tokens_decoder": {"128009": {"content": "<|eot_id|>"}},
        }
        checks = readiness(facts(tokenizer={"tokenizer_config.json": config, "tokenizer.json": {}}))
        assert settings(checks) == {"END_ID": "128009", "PAD_ID": "128009"}

    @pytest.mark.parametrize(
        "config",
        [
            {"tokenizer_class": "PreTrainedTokenizerFast"},
            {"tokenizer_class": "BertTokenizer"},
            {"tokenizer_class": "LlamaTokenizer", "eos_token": None},
        ],
    )
    def test_none_is_a_problem(self, config: dict[str, Any]) -> None:
        checks = readiness(facts(tokenizer={"tokenizer_config.json": config, "tokenizer.json": {}}))
        check = of(checks, "end of sequence")
        assert (check.status, "set eos_token" in check.message) == ("problem", True)

    def test_special_tokens_map_may_name_it(self) -> None:
        tokenizer = {
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
            "tokenizer.json": {"added_tokens": [{"id": 2, "content": "<end>"}]},
            "special_tokens_map.json": {"eos_token": {"content": "<end>"}},
        }
        check = of(readiness(facts(tokenizer=tokenizer)), "end of sequence")
        assert (check.status, check.message) == ("ok", "'<end>' is token 2")

    def test_a_number_that_no_file_tells_is_unknown(self) -> None:
        config = {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}}
        check = of(readiness(facts(tokenizer=config, more=("tokenizer.model",))), "end of sequence")
        assert (check.status, "set END_ID" in check.message) == ("unknown", True)


class TestServing:
    """The release and the GPU that built the engine, against those that will serve it."""

    def test_another_release_is_a_problem(self) -> None:
        check = of(readiness(facts(), trt_llm="0.10.0"), "TensorRT-LLM")
        assert check.status == "problem"
        assert "built with 0.9.0, but 0.10.0 will serve it" in check.message

    def test_the_release_in_config_json_counts_where_the_manifest_says_none(self) -> None:
        assert of(readiness(facts(manifest=None), trt_llm="0.9"), "TensorRT-LLM").status == "ok"

    def test_two_releases_in_one_archive_are_a_problem(self) -> None:
        odd = {**MANIFEST, "toolchain": {"name": "tensorrt_llm", "version": "0.8.0"}}
        check = of(readiness(facts(manifest=odd)), "TensorRT-LLM")
        assert (check.status, "0.8.0 and 0.9.0" in check.message) == ("problem", True)

    def test_nothing_that_says_the_release_is_unknown(self) -> None:
        silent = {**LLAMA, "version": None}
        check = of(readiness(facts(silent, manifest=None), trt_llm="0.9.0"), "TensorRT-LLM")
        assert check.status == "unknown"

    def test_another_gpu_is_a_problem(self) -> None:
        check = of(readiness(facts(), "sm86"), "GPU")
        assert check.status == "problem"
        assert "built for compute capability 9.0, but 8.6 will serve it" in check.message

    def test_a_machine_with_two_kinds_of_gpus_leaves_a_doubt(self) -> None:
        mixed = facts(manifest={**MANIFEST, "gpus": [H100, A10]})
        assert of(readiness(mixed, "86"), "GPU").status == "warning"
        assert of(readiness(mixed, "80"), "GPU").status == "problem"

    def test_what_will_serve_it_is_asked_for_when_it_is_not_said(self) -> None:
        checks = readiness(facts())
        assert of(checks, "GPU").status == of(checks, "TensorRT-LLM").status == "unknown"
        assert verdict(checks) == "unverified"
        assert verdict_lines(checks) == [
            "unverified: nothing stands against it, but 2 of 9 checks could not be made (TensorRT-LLM, GPU)"
        ]

    @pytest.mark.parametrize("asked", [(), ("sm90", "0.9.0")])
    def test_a_cpu_engine_is_for_demonstration(self, asked: tuple[str, ...]) -> None:
        cpu = facts(manifest={"toolchain": {"name": "cpu", "version": "cpu"}, "gpus": "cpu"})
        checks = readiness(cpu, *asked)
        assert verdict(checks) == "not ready"
        first = verdict_lines(checks)[0]
        assert first.startswith("not ready: TensorRT-LLM: demo engine: not for serving")
        assert of(checks, "GPU").status == ("problem" if asked else "unknown")

    @pytest.mark.parametrize("gpus", [None, 7, [], ["H100"], [{"compute_capability": 9}]])
    def test_a_manifest_of_another_shape_is_unknown(self, gpus: object) -> None:
        check = of(readiness(facts(manifest={"gpus": gpus, "toolchain": 3}), "sm90"), "GPU")
        assert check.status == "unknown"


class TestBytes:
    """What reading the archive back has found."""

    def test_gzip_data_after_the_tars_end_are_refused_for_pget(self) -> None:
        check = of(readiness(facts(strict=False)), "extraction")
        assert (check.status, "pget" in check.message) == ("problem", True)
        assert check.message.startswith("its gzip data go on after the tar's end-of-archive mark")

    def test_every_altered_file_is_a_problem(self) -> None:
        checks = readiness(facts(problems=("a was altered", "b is there twice")))
        found = [check.message for check in checks if check.name == "checksums"]
        assert [message.partition(";")[0] for message in found] == ["a was altered", "b is there twice"]
        assert verdict(checks) == "not ready"

    def test_an_archive_without_a_manifest_cannot_be_checked(self) -> None:
        check = of(readiness(facts(manifest=None, problems=(NO_MANIFEST,))), "checksums")
        assert check.status == "unknown"

    def test_a_manifest_that_cannot_be_read_is_a_problem(self) -> None:
        found = facts(manifest=None, problems=("manifest.json is not valid JSON",))
        assert of(readiness(found), "checksums").status == "problem"


def test_log_lines_say_what_stands_against_it_and_what_does_not() -> None:
    lines = log_lines(
        [Check("a", "ok", "fine"), Check("b", "problem", "bad"), Check("c", "warning", "set X")]
    )
    assert lines == [
        "cog-triton: ok: a: fine",
        "not ready for cog-triton: b: bad",
        "cog-triton: warning: c: set X",
    ]


def test_the_verdict_counts_problems_and_lists_what_to_set() -> None:
    checks = [Check("a", "problem", "x"), Check("b", "unknown", "y"), Check("c", "warning", "z", {"E": "1"})]
    assert verdict_lines(checks) == ["not ready: a: x", "set for cog-triton: E=1"]
    assert verdict_lines([*checks, *checks])[0] == "not ready: a: x, and 1 more problem"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "generation_config.json")
KEYS = (
    "pretrained_config",
    "builder_config",
    "build_config",
    "mapping",
    "tokenizer_class",
    "eos_token",
    "auto_map",
    "added_tokens",
    "added_tokens_decoder",
    "model",
    "eos_token_id",
    "toolchain",
    "gpus",
)


@given(
    config=st.dictionaries(st.sampled_from(KEYS), JSON),
    tokenizer=st.dictionaries(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(KEYS), JSON)),
    manifest=st.none() | st.dictionaries(st.sampled_from(KEYS), JSON),
)
def test_whatever_the_files_hold_there_is_a_table(config: Any, tokenizer: Any, manifest: Any) -> None:
    checks = readiness(facts(config, tokenizer=tokenizer, manifest=manifest), "sm90", "0.9.0", 1)
    assert {check.name for check in checks} >= {"layout", "tokenizer", "TensorRT-LLM", "GPU", "checksums"}
    assert all(check.message and check.status in ("ok", "warning", "problem", "unknown") for check in checks)
