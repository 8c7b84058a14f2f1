"""What run.py has written is read as it was meant, and anything else is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_llm_pipeline.check.reading import UnreadableError, read_csv, read_npy, read_texts

ROWS = [[1, 2, 3], [40000, -1, 0]]


class TestCsv:
    def test_rows_of_ids(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("1,2,3\n40000,-1,0\n")
        assert read_csv(tmp_path / "a.csv") == ROWS

    @pytest.mark.parametrize("text", ["1,x\n", "nan\n", "é\n", "1e999\n"])
    def test_anything_else_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(UnreadableError, match=r"a\.csv holds something else than rows of token ids"):
            read_csv(tmp_path / "a.csv")

    def test_a_file_that_was_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError, match=r"a\.csv cannot be read: No such file"):
            read_csv(tmp_path / "a.csv")

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "secret.csv").write_text("1\n")
        (tmp_path / "a.csv").symlink_to("secret.csv")
        with pytest.raises(UnreadableError, match="cannot be read"):
            read_csv(tmp_path / "a.csv")


class TestNpy:
    @pytest.mark.parametrize("kind", ["int32", "int64", ">i4", "int16"])
    def test_numpys_own_files(self, tmp_path: Path, kind: str) -> None:
        rows = [[1, 2, 3], [400, -1, 0]]
        np.save(tmp_path / "a.npy", np.array(rows, dtype=kind))
        assert read_npy(tmp_path / "a.npy") == rows

    def test_a_header_of_the_second_version(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, np.array(ROWS, dtype=np.int32), version=(2, 0))
        assert read_npy(tmp_path / "a.npy") == ROWS

    @pytest.mark.parametrize(
        "array",
        [np.zeros((2, 2), np.float32), np.zeros(3, np.int32), np.asfortranarray(np.ones((2, 2), np.int32))],
    )
    def test_other_arrays_are_refused(self, tmp_path: Path, array: np.ndarray) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UnreadableError, match=r"a\.npy is no NumPy file with rows of token ids"):
            read_npy(tmp_path / "a.npy")

    @given(cut=st.integers(0, 135), flip=st.integers(0, 135), to=st.integers(0, 255))
    def test_no_damage_raises_anything_else(
        self, tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, to: int
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "damaged.npy"
        np.save(path, np.array(ROWS, dtype=np.int32))
        data = bytearray(path.read_bytes())
        data[flip] = to
        path.write_bytes(bytes(data[: len(data) - cut]))
        try:
            rows = read_npy(path)
        except UnreadableError:
            return
        assert all(isinstance(token, int) for row in rows for token in row)


class TestTexts:
    def test_of_0_7_and_later(self) -> None:
        lines = [
            "[TensorRT-LLM][INFO] loaded",
            'Input [Text 0]: "a"',
            'Output [Text 0 Beam 0]: " is "quoted""',
            'Input [Text 1]: "b"',
            'Output [Text 1 Beam 0]: " two',
            'lines"',
            "[TensorRT-LLM][INFO] done",
        ]
        assert read_texts(lines) == [' is "quoted"', " two\nlines"]

    def test_of_0_5(self) -> None:
        assert read_texts(['Input: "a"', 'Output: " b"']) == [" b"]

    def test_the_first_beam_alone(self) -> None:
        lines = ['Output [Text 0 Beam 0]: "best"', 'Output [Text 0 Beam 1]: "second"']
        assert read_texts(lines) == ["best"]

    def test_nothing(self) -> None:
        assert read_texts(["Traceback", "ImportError"]) == []
