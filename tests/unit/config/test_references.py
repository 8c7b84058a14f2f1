"""`${...}`: what can be referred to, from where, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PRINT_PEAK_KIB
from trt_llm_pipeline.config import examine, loads
from trt_llm_pipeline.config.references import Resolver, UnresolvedReferenceError
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

CONFIG = """
model_id: owner/name
revision: v1
example_name: gpt
convert_to_ft:
  script: hf_gpt_convert.py
  output_dir: ./c-model/1-gpu
  args: {out-dir: ./c-model, in-file: "${model_dir}", tp: 1}
build:
  script: build.py
  args: {max_batch_size: 8, flag: , names: [a, b], src: /src/x, dotted.name: 7}
"""


def resolver(text: str = CONFIG, **output_dirs: str) -> Resolver:
    workspace = Workspace(Path("/somewhere"))
    return Resolver(loads(text), "/somewhere/models/owner/name", output_dirs, workspace.map)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("no reference", "no reference"),
        ("${model_dir}", "/somewhere/models/owner/name"),
        ("${ model_id }", "owner/name"),
        ("${revision}-${example_name}", "v1-gpt"),
        ("${convert_to_ft.output_dir}", "./c-model/1-gpu"),
        ("${convert_checkpoint.output_dir}/x", "./c-model/1-gpu/x"),
        ("${convert_to_ft.script}", "hf_gpt_convert.py"),
        ("${convert_to_ft.args.in-file}", "/somewhere/models/owner/name"),
        ("${build.args.max_batch_size}0", "80"),
        ("${build.args.dotted.name}", "7"),
        ("${build.args.src}", "/somewhere/x"),
        ("/src/${model_id}", "/somewhere/owner/name"),
        ("x/src/${model_id}", "x/src/owner/name"),
        ("$model_id $ {model_id} $$ {}", "$model_id $ {model_id} $$ {}"),
        ("$${model_id}", "${model_id}"),
        ("$$${model_id}", "$${model_id}"),
        ("", ""),
    ],
)
def test_references_are_replaced(text: str, resolved: str) -> None:
    assert resolver().text(text) == resolved


def test_a_directory_that_was_found_is_known_and_a_declared_one_wins() -> None:
    known = resolver(build="/somewhere/engine", convert_to_ft="/somewhere/other")
    assert (
        known.text("${build.output_dir} ${convert_to_ft.output_dir}") == "/somewhere/engine ./c-model/1-gpu"
    )


def test_a_workspace_below_src_is_not_taken_for_the_images() -> None:
    workspace = Workspace(Path("/src/checkout"))
    resolve = Resolver(loads(CONFIG), "/src/checkout/models/owner/name", {}, workspace.map).text
    assert resolve("${model_dir}") == "/src/checkout/models/owner/name"
    assert resolve("${build.args.src}") == "/src/checkout/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${modle_id}", "the reference ${modle_id} is unknown; did you mean ${model_id}?"),
        ("${}", "the reference ${} is unknown; known: "),
        ("${build.output_dir}", "is not known before step build has run"),
        ("${build.args.flag}", "is to a flag or a list; write it out"),
        ("${build.args.names}", "is to a flag or a list; write it out"),
        ("${quantize.output_dir}", "to a step that is not in this config; it has convert_to_ft and build"),
        ("${matrix.dtype}", "is to a fleet's matrix; fleet plan checks a config with its values"),
        ("${convert_tofft.output_dir}", "did you mean ${convert_to_ft.output_dir}?"),
        ("${quantise.output_dir}", "is unknown; known: build.args."),
        ("${build.args.scr}", "did you mean ${build.args.src}?"),
        ("${build.args.dtype}", "is unknown; known: build.args."),
        ("${hf_token}", "is unknown"),
        ("${model_id", "'${' is never closed by '}'; write $${ for a literal ${"),
        ("${a${model_id}}", "'${' is never closed by '}'"),
    ],
)
def test_what_cannot_be_referred_to_is_named(text: str, message: str) -> None:
    with pytest.raises(UnresolvedReferenceError) as caught:
        resolver().text(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("${build.args.model_dri}", "known: build.args.other, "),
        ("${build.args.othre}", "did you mean ${build.args.other}?"),
    ],
)
def test_no_key_is_advised_to_refer_to_itself(
    miniature: Toolchain, workspace: Workspace, reference: str, advice: str
) -> None:
    config = loads(args({"model_dir": reference, "other": "x"}))
    (mistake,) = make_plan(config, miniature, workspace)[1]
    assert mistake.message.startswith(f"the reference {reference} is unknown; {advice}")
    assert "build.args.model_dir" not in mistake.message


def args(lines: dict[str, str]) -> str:
    text = "".join(f"    {key}: '{value}'\n" for key, value in lines.items())
    return f"model_id: m\nexample_name: gpt\nbuild:\n  script: build.py\n  args:\n{text}"


# Each of these took hours or gigabytes while it was planned without limits.
ATTACKS = {
    "thousands of unknown references": args({f"a{n}": "${nothing}" for n in range(9000)}),
    "thousands of copies of a long value": args(
        {"long": "x" * 30_000} | {f"a{n}": "${build.args.long}" for n in range(6000)}
    ),
    "a value with thousands of references": args({"a": "${model_dir}" * 20_000}),
}


class TestChainsAndLimits:
    def test_a_circle_is_shown(self) -> None:
        circle = resolver(args({"a": "${build.args.b}", "b": "${build.args.a}"}))
        with pytest.raises(
            UnresolvedReferenceError, match=r"build\.args\.b -> build\.args\.a -> build\.args\.b"
        ):
            circle.text("${build.args.b}")

    def test_a_long_chain_is_refused(self) -> None:
        chain = {f"a{n}": f"${{build.args.a{n + 1}}}" for n in range(5000)} | {"a5000": "end"}
        resolve = resolver(args(chain)).text
        assert resolve("${build.args.a4980}") == "end"
        with pytest.raises(UnresolvedReferenceError, match="through more than 32 others"):
            resolve("${build.args.a0}")

    def test_references_that_double_do_not_take_forever(self) -> None:
        doubling = {f"a{n}": f"${{build.args.a{n + 1}}}" * 2 for n in range(30)}
        empty = resolver(args({**doubling, "a30": ""}))
        assert empty.text("${build.args.a0}") == ""
        full = resolver(args({**doubling, "a30": "x"}))
        assert full.text("${build.args.a20}") == "x" * 1024
        with pytest.raises(UnresolvedReferenceError, match="stand for more than 32,768 characters"):
            full.text("${build.args.a0}")

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_attacks_are_refused_in_little_memory(self, tmp_path: Path, attack: str) -> None:
        (tmp_path / "toolchain/examples/gpt").mkdir(parents=True)
        (tmp_path / "toolchain/examples/gpt/build.py").write_text("")
        (tmp_path / "config.yaml").write_text(ATTACKS[attack])
        program = """
import sys
from pathlib import Path
from trt_llm_pipeline.config import load
from trt_llm_pipeline.plan import make_plan
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace
here = Path(sys.argv[1])
toolchain = Toolchain(here / "toolchain", "t", "1", (), sys.executable, "")
planned, mistakes = make_plan(load(here / "config.yaml"), toolchain, Workspace.at(here / "workspace"))
assert mistakes and not planned.steps
"""
        done = subprocess.run(
            [sys.executable, "-c", program + PRINT_PEAK_KIB, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert int(done.stdout) < 100 * 1024


class TestWhenItIsKnown:
    """A step whose output_dir is left out shows it only when it has run."""

    def mistakes(self, text: str, miniature: Toolchain, workspace: Workspace) -> list[str]:
        loaded = examine(text, "c")
        assert loaded.config is not None
        found = [*loaded.mistakes, *make_plan(loaded.config, miniature, workspace)[1]]
        return [f"{mistake.key}: {mistake.message}" for mistake in found]

    def steps(self, convert: str, build: str) -> str:
        return (
            "model_id: m\nexample_name: gpt\n"
            f"convert_to_ft:\n  script: hf_gpt_convert.py\n{convert}"
            f"build:\n  script: build.py\n{build}"
        )

    def test_later_args_may_refer_to_it(self, miniature: Toolchain, workspace: Workspace) -> None:
        text = self.steps("", "  args: {model_dir: '${convert_to_ft.output_dir}'}\n")
        assert self.mistakes(text, miniature, workspace) == []

    @pytest.mark.parametrize(
        ("convert", "build", "key"),
        [
            ("", "  output_dir: ${convert_to_ft.output_dir}/engine\n", "build.output_dir"),
            (
                "",
                "  output_dir: ${build.args.x}\n  args: {x: '${convert_to_ft.output_dir}'}\n",
                "build.output_dir",
            ),
            ("  args: {x: '${convert_to_ft.output_dir}'}\n", "", "convert_to_ft.args.x"),
            ("  args: {x: '${build.output_dir}'}\n", "", "convert_to_ft.args.x"),
            (
                "  args: {x: '${build.args.y}'}\n",
                "  args: {y: '${convert_to_ft.output_dir}'}\n",
                "convert_to_ft.args.x",
            ),
        ],
    )
    def test_nothing_before_may(
        self, miniature: Toolchain, workspace: Workspace, convert: str, build: str, key: str
    ) -> None:
        found = self.mistakes(self.steps(convert, build), miniature, workspace)
        assert len(found) == 1
        assert found[0].startswith(f"{key}: the reference ${{")
        assert "is not known before step" in found[0]

    def test_a_declared_one_may_be_referred_to_from_anywhere(
        self, miniature: Toolchain, workspace: Workspace
    ) -> None:
        text = self.steps("  args: {x: '${build.output_dir}'}\n", "  output_dir: ./e\n")
        assert self.mistakes(text, miniature, workspace) == []

    def test_what_is_wrong_itself_is_reported_once(self, miniature: Toolchain, workspace: Workspace) -> None:
        text = self.steps(
            "  timeout: soon\n  output_dir: [a]\n", "  args: {x: '${convert_to_ft.output_dir}'}\n"
        )
        assert [found.split(":")[0] for found in self.mistakes(text, miniature, workspace)] == [
            "convert_to_ft.timeout",
            "convert_to_ft.output_dir",
        ]
