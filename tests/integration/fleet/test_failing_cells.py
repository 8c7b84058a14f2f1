"""A cell that cannot be built: named by itself, in one answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.fleet.fleet_house import FleetHouse
from trt_llm_pipeline import pipeline
from trt_llm_pipeline.fleet import cells
from trt_llm_pipeline.fleet.attempt import job_of
from trt_llm_pipeline.fleet.attempt import run as run_attempt
from trt_llm_pipeline.settings import Settings


@pytest.mark.slow
def test_a_cell_that_fails_is_told_of_in_one_answer_and_by_its_name(house: FleetHouse) -> None:
    text = (house.folder / "tiny.yaml").read_text()
    text = text.replace("out-dir: ./c-model/gpt2", "out-dir: ./c-model/${matrix.place}")
    text = text.replace("model_dir: ${convert_to_ft.output_dir}", "model_dir: ./c-model/gpt2/1-gpu")
    head, _, rest = text.partition("matrix:\n")
    text = (
        f"{head}matrix: {{dtype: [float16], batch: [1], place: [gpt3]}}\n{rest[rest.index('resources:') :]}"
    )
    (house.folder / "wrong.yaml").write_text(text)
    told = house.json("run", "wrong.yaml", code=8)
    assert (told["kind"], told["type"], told["delivered"]) == ("cells", "CellsFailed", {})
    assert told["error"].startswith("1 of 1 cell failed, 0 are delivered; their logs: ")
    message = told["failed"]["float16-1-gpt3"]["message"]
    assert message in told["error"]
    assert (
        "exited 0, but cell float16-1-gpt3: convert_to_ft.output_dir './c-model/gpt2/1-gpu' does not exist: "
        "its files went to ./c-model/gpt3/1-gpu; give cell float16-1-gpt3 output_dir: "
        "./c-model/gpt3/1-gpu, or leave it out; build.args.model_dir must name the same" in message
    )
    (cell,) = house.json("status", told["id"])["cells"]
    assert message in cell["detail"]
    out, err = house.run("run", "wrong.yaml", code=8)
    assert out == ""
    assert f"{told['id']}: 1 cell; records: " in err
    assert err.count("error: 1 of 1 cell failed") == 1
    assert house.run("plan", "wrong.yaml")[0].startswith(f"{told['id']}: 1 cell\n")


def test_a_node_that_refuses_a_config_names_the_cell_and_the_key_and_no_line(house: FleetHouse) -> None:
    env = {**house.env, "TRTLLM_DIR": str(house.toolchain)}
    found = cells.load(str(house.folder / "tiny.yaml"), Settings.of_one_owner(env))
    cell = found.cells[0]
    config = found.configs[cell.config].replace("max_batch_size: 1", "max_batch_sice: 1")
    job = job_of(replace(found, configs={cell.config: config}), pipeline.build, None, cell, 1, "mark")
    outcome = run_attempt(job, {"node": "n"}, env)
    assert (outcome.state, outcome.kind) == ("failed", "config")
    assert outcome.message.startswith(f"cell {cell.name}: build.args.max_batch_sice: ")
