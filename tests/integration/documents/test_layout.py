"""The tests mirror the library: a module's own tests are found by its name."""

from __future__ import annotations

from pathlib import Path

from tests.dockerfile import tracked_files

#: Modules without a test file of their own, by what runs them instead. The one place where such are named.
COVERED_ELSEWHERE = {
    "artifact/engine_files": "unit/artifact/test_pack.py",
    "artifact/unpack": "integration/command_line/test_try.py",
    "cache/dependencies": "integration/statements/test_statements.py",
    "cache/fingerprint": "unit/cache/test_keys.py",
    "cache/remote": "integration/cache/test_shared_cache.py",
    "cache/store": "integration/command_line/test_cache.py",
    "check/asking": "integration/check/test_asking.py",
    "check/programs/reference": "integration/check/test_damage.py",
    "check/programs/spell": "integration/check/test_asking.py",
    "check/referring": "integration/check/test_damage.py",
    "check/trial": "integration/command_line/test_try.py",
    "check/supervised": "integration/check/test_check_stage.py",
    "check/verdict": "integration/check/test_check_stage.py",
    "cli/__main__": "integration/faults/test_cancel.py",
    "cli/archives": "integration/command_line/test_inspect_command.py",
    "cli/cache": "integration/command_line/test_cache.py",
    "cli/commands": "integration/documents/test_readme_commands.py",
    "cli/edge": "integration/documents/test_readme_commands.py",
    "cli/fleet": "integration/fleet/test_tiny.py",
    "cli/inputs": "integration/command_line/test_options.py",
    "config/schema": "unit/config/test_model.py",
    "cli/trying": "integration/command_line/test_try.py",
    "config/reading": "unit/config/test_model.py",
    "config/yaml_text": "unit/config/test_yaml_reader.py",
    "delivery/attesting": "integration/delivery/test_statements.py",
    "delivery/collect": "integration/delivery/test_statements.py",
    "delivery/http_put": "integration/delivery/test_http_put.py",
    "delivery/object_store": "integration/fleet/test_records_on_s3.py",
    "delivery/outbox": "integration/delivery/test_http_put.py",
    "delivery/output": "integration/command_line/test_options.py",
    "delivery/send": "integration/delivery/test_http_put.py",
    "delivery/store_client": "integration/delivery/test_object_store.py",
    "delivery/store_upload": "integration/delivery/test_object_store.py",
    "fit/host": "unit/fit/test_assess.py",
    "fit/recorded": "unit/fit/test_assess.py",
    "fit/remedies": "unit/fit/test_assess.py",
    "fit/shape": "unit/fit/test_families.py",
    "fit/table": "unit/fit/test_assess.py",
    "fleet/attempt": "integration/fleet/test_faults.py",
    "fleet/drive": "integration/fleet/test_faults.py",
    "fleet/driving": "integration/fleet/test_faults.py",
    "fleet/fleet_plan": "integration/fleet/test_tiny.py",
    "fleet/known": "integration/fleet/test_tiny.py",
    "fleet/node": "integration/fleet/test_faults.py",
    "fleet/nodes": "integration/fleet/test_faults.py",
    "fleet/overview": "integration/fleet/test_tiny.py",
    "fleet/ray_runner": "integration/fleet/test_faults.py",
    "fleet/show": "integration/fleet/test_tiny.py",
    "fleet/status_page": "integration/fleet/test_status_page.py",
    "fleet/watch": "integration/fleet/test_faults.py",
    "inspection/checks": "unit/inspection/test_readiness.py",
    "inspection/serving": "unit/inspection/test_readiness.py",
    "inspection/tokenizer_readiness": "unit/inspection/test_readiness.py",
    "inspection/tokenizer_trial": "integration/command_line/test_inspect_command.py",
    "inspection/write_configs": "integration/command_line/test_write_config.py",
    "model_source/access": "integration/downloads/test_hub_models.py",
    "model_source/file_source": "integration/downloads/test_ranges.py",
    "model_source/first_look": "integration/attacks/test_models.py",
    "model_source/hub": "integration/downloads/test_hub_models.py",
    "model_source/model_types": "integration/downloads/test_hub_models.py",
    "model_source/peek": "integration/downloads/test_peek.py",
    "model_source/pickles/files": "unit/model_source/test_pickles.py",
    "model_source/pickles/machine": "unit/model_source/test_pickles.py",
    "model_source/pickles/names": "unit/model_source/test_pickles.py",
    "model_source/pickles/sections": "unit/model_source/test_pickles.py",
    "model_source/pickles/stack": "unit/model_source/test_pickles.py",
    "model_source/pickles/zip_layout": "unit/model_source/test_pickles.py",
    "model_source/record": "unit/model_source/test_source_parts.py",
    "model_source/source": "integration/downloads/test_hub_models.py",
    "model_source/tar": "integration/downloads/test_tar_models.py",
    "model_source/tar_reader": "integration/downloads/test_tar_models.py",
    "model_source/transfer": "integration/downloads/test_ranges.py",
    "model_source/verifier": "integration/downloads/test_ranges.py",
    "net/connection": "integration/downloads/test_ranges.py",
    "net/pool": "integration/downloads/test_ranges.py",
    "net/ranged": "integration/downloads/test_ranges.py",
    "net/read_ahead": "integration/downloads/test_ranges.py",
    "net/window": "integration/downloads/test_ranges.py",
    "observer/observer": "integration/command_line/test_cache.py",
    "pipeline": "integration/command_line/test_cache.py",
    "preflight/lookup": "integration/cache/test_shared_cache.py",
    "preflight/parser_check": "integration/preflight/test_preflight.py",
    "preflight/preview": "integration/command_line/test_cache.py",
    "preflight/probe/parser_probe": "integration/preflight/test_preflight.py",
    "preflight/probe/probe_attempt": "integration/preflight/test_preflight_mistakes.py",
    "preflight/probe/probe_guard": "integration/preflight/test_preflight.py",
    "preflight/probe/probe_watch": "integration/preflight/test_preflight_programs.py",
    "preflight/validation": "integration/preflight/test_preflight_mistakes.py",
    "process/landlock": "integration/sandbox/test_breakout.py",
    "process/namespaces": "integration/sandbox/test_breakout.py",
    "process/places": "integration/sandbox/test_breakout.py",
    "process/sandbox": "integration/sandbox/test_breakout.py",
    "process/seccomp": "integration/sandbox/test_breakout.py",
    "provenance": "integration/command_line/test_report_page.py",
    "records": "integration/faults/test_state_files.py",
    "report/charts": "unit/report/test_page.py",
    "report/markup": "unit/report/test_page.py",
    "report/style": "unit/report/test_page.py",
    "report/verdict": "unit/report/test_page.py",
    "step/cached": "integration/cache/test_inputs_of_steps.py",
    "step/confine": "integration/sandbox/test_use.py",
    "step/failure": "unit/step/test_run.py",
    "step/log": "unit/step/test_run.py",
    "terminal/json_lines": "integration/command_line/test_build_command.py",
    "terminal/plain": "integration/command_line/test_build_command.py",
    "terminal/summary": "unit/terminal/test_live.py",
    "workspace/disk": "integration/faults/test_disk.py",
    "workspace/shapes": "integration/faults/test_state_files.py",
    "workspace/waiting": "integration/fleet/test_faults.py",
}


def test_every_module_has_its_tests_where_its_name_says_or_is_named_here() -> None:
    tracked = set(tracked_files())
    modules = {
        str(Path(name).relative_to("trt_llm_pipeline").with_suffix(""))
        for name in tracked
        if name.startswith("trt_llm_pipeline/") and name.endswith(".py")
    }
    modules = {name for name in modules if not name.endswith("__init__") and not name.startswith("testing/")}

    def own(module: str) -> str:
        return f"tests/unit/{Path(module).parent}/test_{Path(module).name}.py".replace("/./", "/")

    assert {module for module in modules if own(module) not in tracked} == set(COVERED_ELSEWHERE)
    assert {path for path in COVERED_ELSEWHERE.values() if f"tests/{path}" not in tracked} == set()
