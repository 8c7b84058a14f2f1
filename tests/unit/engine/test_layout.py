"""Engine and checkpoint directories of each generation, whole and damaged."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_llm_pipeline.engine.layout import EngineFacts, LayoutError, check_checkpoint, check_engine


def directory(folder: Path, config: object, *names: str) -> Path:
    """A directory with this config.json (text as it is) and these files, one byte each."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in names:
        (folder / name).write_bytes(b"e")
    return folder


def to_071(tp: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "builder_config": {"name": "gpt", "precision": "float16", "tensor_parallel": tp, **more},
        "plugin_config": {},
    }


def from_08(world: int = 1, tp: int | None = None, pp: int = 1, **more: Any) -> dict[str, Any]:
    mapping = {"world_size": world, "tp_size": tp or world // pp, "pp_size": pp}
    return {
        "version": "0.9.0",
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "float16",
            "mapping": mapping,
            **more,
        },
        "build_config": {},
    }


class TestEnginesTo071:
    def test_facts(self, tmp_path: Path) -> None:
        config = to_071(2, max_position_embeddings=1024)
        names = ("gpt_float16_tp2_rank0.engine", "gpt_float16_tp2_rank1.engine")
        assert check_engine(directory(tmp_path, config, *names, "model.cache")) == EngineFacts(
            generation="builder_config",
            world_size=2,
            tp=2,
            pp=1,
            dtype="float16",
            name="gpt",
            rank_files=names,
            max_position_embeddings=1024,
            tensorrt_llm_version=None,
        )

    def test_pipeline_parallelism_is_in_the_names(self, tmp_path: Path) -> None:
        names = [f"llama_float16_tp2_pp2_rank{rank}.engine" for rank in range(4)]
        facts = check_engine(directory(tmp_path, to_071(2, name="llama", pipeline_parallel=2), *names))
        assert (facts.world_size, facts.tp, facts.pp, list(facts.rank_files)) == (4, 2, 2, names)

    def test_ranks_are_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        names = [f"gpt_float16_tp12_rank{rank}.engine" for rank in range(12)]
        assert list(check_engine(directory(tmp_path, to_071(12), *names)).rank_files) == names

    def test_the_dtype_in_the_name_may_be_the_checkpoints(self, tmp_path: Path) -> None:
        facts = check_engine(directory(tmp_path, to_071(), "gpt_float32_tp1_rank0.engine"))
        assert facts.rank_files == ("gpt_float32_tp1_rank0.engine",)

    def test_a_missing_rank_is_named_with_its_file(self, tmp_path: Path) -> None:
        folder = directory(tmp_path, to_071(2), "gpt_float16_tp2_rank0.engine")
        with pytest.raises(
            LayoutError, match=r"promises 2 ranks, but rank 1 \(gpt_float16_tp2_rank1\.engine\) is"
        ):
            check_engine(folder)

    @pytest.mark.parametrize(
        "stray",
        [
            "gpt_float16_tp1_rank1.engine",
            "gpt_float16_tp2_rank0.engine",
            "gpt_float32_tp1_rank0.engine",
            "rank0.engine",
            "other.engine",
        ],
    )
    def test_an_engine_of_another_run_is_refused(self, tmp_path: Path, stray: str) -> None:
        folder = directory(tmp_path, to_071(), "gpt_float16_tp1_rank0.engine", stray)
        with pytest.raises(
            LayoutError, match=f"also holds {stray}, left from another run: this engine has 1 rank"
        ):
            check_engine(folder)


class TestEnginesFrom08:
    def test_facts(self, tmp_path: Path) -> None:
        config = from_08(4, pp=2, max_position_embeddings=4096)
        names = tuple(f"rank{rank}.engine" for rank in range(4))
        assert check_engine(directory(tmp_path, config, *names)) == EngineFacts(
            generation="pretrained_config",
            world_size=4,
            tp=2,
            pp=2,
            dtype="float16",
            name="LlamaForCausalLM",
            rank_files=names,
            max_position_embeddings=4096,
            tensorrt_llm_version="0.9.0",
        )

    def test_no_mapping_means_one_rank(self, tmp_path: Path) -> None:
        folder = directory(tmp_path, {"pretrained_config": {"dtype": "float16"}}, "rank0.engine")
        facts = check_engine(folder)
        assert (facts.world_size, facts.tensorrt_llm_version, facts.max_position_embeddings) == (
            1,
            None,
            None,
        )

    def test_context_parallelism_counts(self, tmp_path: Path) -> None:
        config = {"pretrained_config": {"mapping": {"tp_size": 1, "cp_size": 2}}}
        assert check_engine(directory(tmp_path, config, "rank0.engine", "rank1.engine")).world_size == 2

    def test_a_world_size_that_is_not_the_product_is_warned_of(self, tmp_path: Path) -> None:
        facts = check_engine(directory(tmp_path, from_08(1, tp=2), "rank0.engine"))
        assert "world_size 1, but its parallelism multiplies to 2" in facts.warnings[0]

    def test_missing_ranks_are_named(self, tmp_path: Path) -> None:
        folder = directory(tmp_path, from_08(4), "rank0.engine", "rank2.engine")
        with pytest.raises(
            LayoutError, match=r"rank 1 \(rank1\.engine\), 3 \(rank3\.engine\) is missing; there is"
        ):
            check_engine(folder)

    def test_an_empty_rank_is_refused(self, tmp_path: Path) -> None:
        folder = directory(tmp_path, from_08(2), "rank0.engine", "rank1.engine")
        (folder / "rank1.engine").write_bytes(b"")
        with pytest.raises(LayoutError, match=r"empty: rank1\.engine"):
            check_engine(folder)

    def test_a_folder_in_a_ranks_place_is_a_missing_rank(self, tmp_path: Path) -> None:
        folder = directory(tmp_path, from_08())
        (folder / "rank0.engine").mkdir()
        with pytest.raises(LayoutError, match=r"rank 0 \(rank0\.engine\) is missing; there is nothing"):
            check_engine(folder)

    @pytest.mark.parametrize("stray", ["rank1.engine", "rank00.engine", "gpt_float16_tp1_rank0.engine"])
    def test_a_stale_rank_is_refused(self, tmp_path: Path, stray: str) -> None:
        folder = directory(tmp_path, from_08(), "rank0.engine", stray)
        with pytest.raises(LayoutError, match="left from another run"):
            check_engine(folder)


class TestEncoderDecoder:
    def test_both_halves_are_checked(self, tmp_path: Path) -> None:
        directory(tmp_path / "encoder", to_071(name="enc"), "enc_float16_tp1_rank0.engine")
        directory(tmp_path / "decoder", to_071(name="dec"), "dec_float16_tp1_rank0.engine")
        facts = check_engine(tmp_path)
        assert facts.rank_files == (
            "encoder/enc_float16_tp1_rank0.engine",
            "decoder/dec_float16_tp1_rank0.engine",
        )
        assert (facts.world_size, facts.name) == (1, "dec")

    def test_a_half_alone_is_refused(self, tmp_path: Path) -> None:
        directory(tmp_path / "encoder", from_08(), "rank0.engine")
        with pytest.raises(LayoutError, match="holds encoder but no decoder"):
            check_engine(tmp_path)

    def test_a_rank_missing_from_a_half_is_named(self, tmp_path: Path) -> None:
        directory(tmp_path / "encoder", from_08(2), "rank0.engine", "rank1.engine")
        directory(tmp_path / "decoder", from_08(2), "rank0.engine")
        with pytest.raises(LayoutError, match=r"decoder: config\.json promises 2 ranks, but rank 1"):
            check_engine(tmp_path)

    def test_halves_of_different_sizes_are_refused(self, tmp_path: Path) -> None:
        directory(tmp_path / "encoder", from_08(2), "rank0.engine", "rank1.engine")
        directory(tmp_path / "decoder", from_08(1), "rank0.engine")
        with pytest.raises(LayoutError, match="the encoder has 2 ranks and the decoder 1"):
            check_engine(tmp_path)


class TestBadConfigs:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (None, r"config\.json is missing"),
            ("", r"config\.json is empty"),
            ("{", r"config\.json is not valid JSON at line 1"),
            ("\n\n{]", r"config\.json is not valid JSON at line 3"),
            ("[1]", r"config\.json is not a JSON object"),
            ("null", r"config\.json is not a JSON object"),
            ("[" * 100_000, r"config\.json is not valid JSON"),
            ('{"a": ' + "9" * 5000 + "}", r"config\.json is not valid JSON"),
            (
                to_071(10**9),
                r"builder_config\.tensor_parallel is 1000000000; it must be a whole number from 1 to",
            ),
            (to_071(0), r"tensor_parallel is 0"),
            (to_071(-1), r"tensor_parallel is -1"),
            (to_071(True), r"tensor_parallel is True"),
            (to_071("2"), r"tensor_parallel is '2'"),
            (to_071(1.0), r"tensor_parallel is 1\.0"),
            (to_071(10**4000), r"tensor_parallel is an absurd number"),
            (from_08(10**9), r"mapping\.tp_size is 1000000000"),
            (from_08(99_999), r"99,999 ranks, but rank 1 \(rank1\.engine\), .* and 99990 more is missing"),
            ({"pretrained_config": {"mapping": [1]}}, r"mapping is no JSON object"),
            ({"pretrained_config": {"mapping": {"world_size": {}}}}, r"world_size is \{\}"),
        ],
    )
    def test_each_is_named(self, tmp_path: Path, config: object, message: str) -> None:
        with pytest.raises(LayoutError, match=message):
            check_engine(directory(tmp_path, config, "rank0.engine"))

    def test_a_config_that_is_a_fifo_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "config.json")
        with pytest.raises(LayoutError, match="not a regular file"):
            check_engine(directory(tmp_path, None, "rank0.engine"))

    def test_no_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match="gone is not a directory"):
            check_engine(tmp_path / "gone")

    def test_a_shape_nobody_knows_is_taken_with_a_warning(self, tmp_path: Path) -> None:
        facts = check_engine(directory(tmp_path, {"new": 1}, "b.engine", "a.engine"))
        assert (facts.generation, facts.rank_files, len(facts.warnings)) == (
            "unknown",
            ("a.engine", "b.engine"),
            1,
        )

    def test_a_shape_nobody_knows_without_an_engine_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match=r"no \.engine file"):
            check_engine(directory(tmp_path, {"new": 1}, "weights.bin"))

    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    keys = (
        "name",
        "precision",
        "tensor_parallel",
        "pipeline_parallel",
        "dtype",
        "max_position_embeddings",
        "mapping",
    )
    sections = st.fixed_dictionaries({}, optional=dict.fromkeys(keys, values)) | values

    @settings(
        max_examples=150,
    )
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "builder_config": sections,
                "pretrained_config": sections,
                "version": values,
                "mapping": values,
            },
        )
    )
    def test_any_json_gives_facts_or_a_layout_error(self, tmp_path: Path, config: dict[str, Any]) -> None:
        folder = directory(tmp_path, config, "rank0.engine", "rank0.safetensors")
        for check in (check_engine, check_checkpoint):
            try:
                facts = check(folder)
            except LayoutError as problem:
                assert str(tmp_path) in str(problem)  # noqa: PT017  either outcome is right
            else:
                assert facts is not None
                assert 1 <= facts.world_size <= 100_000


def tensors(path: Path) -> None:
    """A safetensors file of one byte tensor."""
    header = json.dumps(
        {"__metadata__": {}, "a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"data")


def checkpoint(folder: Path, world: int, *ranks: int, **more: Any) -> Path:
    mapping = {"world_size": world, "tp_size": world, "pp_size": 1}
    directory(folder, {"architecture": "GPTForCausalLM", "dtype": "bfloat16", "mapping": mapping, **more})
    for rank in ranks:
        tensors(folder / f"rank{rank}.safetensors")
    return folder


class TestCheckpoints:
    def test_facts(self, tmp_path: Path) -> None:
        facts = check_checkpoint(checkpoint(tmp_path, 2, 0, 1, quantization={"quant_algo": "W8A16"}))
        assert facts is not None
        assert (facts.world_size, facts.tp, facts.pp, facts.dtype, facts.quant_algo, facts.architecture) == (
            (2, 2, 1, "bfloat16", "W8A16", "GPTForCausalLM")
        )
        assert facts.rank_files == ("rank0.safetensors", "rank1.safetensors")

    @pytest.mark.parametrize(
        ("config", "names"),
        [
            (None, ("config.ini", "model.wte.bin")),
            ({"model_type": "gpt2"}, ("model.safetensors",)),
            (None, ("llama_tp1_rank0.npz",)),
            ("{", ("config.ini",)),
        ],
    )
    def test_what_is_no_unified_checkpoint_is_left_to_others(
        self, tmp_path: Path, config: object, names: tuple[str, ...]
    ) -> None:
        assert check_checkpoint(directory(tmp_path, config, *names)) is None
        assert check_checkpoint(tmp_path / "gone") is None

    def test_a_missing_rank_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            LayoutError, match=r"promises 2 ranks, but rank 1 \(rank1\.safetensors\) is missing"
        ):
            check_checkpoint(checkpoint(tmp_path, 2, 0))

    def test_a_config_without_any_rank_is_a_checkpoint_that_failed(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match=r"rank 0 \(rank0\.safetensors\) is missing; there is nothing"):
            check_checkpoint(checkpoint(tmp_path, 1))

    def test_a_stale_rank_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match=r"also holds rank1\.safetensors.*this checkpoint has 1 rank"):
            check_checkpoint(checkpoint(tmp_path, 1, 0, 1))

    @pytest.mark.parametrize("left", [0, 5, 40, -1])
    def test_a_rank_that_was_cut_off_is_refused(self, tmp_path: Path, left: int) -> None:
        path = checkpoint(tmp_path, 1, 0) / "rank0.safetensors"
        path.write_bytes(path.read_bytes()[:left])
        with pytest.raises(LayoutError, match=r"rank0\.safetensors"):
            check_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        "header", [b"[1]", b"{", b'{"a": 1}', b'{"a": {"data_offsets": []}}', b'{"a": {}}']
    )
    def test_a_hostile_header_is_refused(self, tmp_path: Path, header: bytes) -> None:
        path = checkpoint(tmp_path, 1, 0) / "rank0.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(LayoutError, match="no readable safetensors header"):
            check_checkpoint(tmp_path)

    def test_ranks_without_a_config_are_refused(self, tmp_path: Path) -> None:
        tensors(tmp_path / "rank0.safetensors")
        with pytest.raises(LayoutError, match=r"config\.json is missing"):
            check_checkpoint(tmp_path)

    def test_both_halves_of_an_encoder_decoder_are_checked(self, tmp_path: Path) -> None:
        for half in ("encoder", "decoder"):
            checkpoint(tmp_path / half, 1, 0)
        facts = check_checkpoint(tmp_path)
        assert facts is not None
        assert facts.rank_files == ("encoder/rank0.safetensors", "decoder/rank0.safetensors")
        (tmp_path / "decoder" / "rank0.safetensors").unlink()
        with pytest.raises(LayoutError, match="decoder: config"):
            check_checkpoint(tmp_path)
