"""The tests mirror the library: a module's own tests are found by its name."""

from __future__ import annotations

from pathlib import Path

from tests.dockerfile import tracked_files

#: Modules without a test file of their own, by what runs them instead. The one place where such are named.
COVERED_ELSEWHERE = {
    "cache/fingerprint": "unit/cache/test_keys.py",
    "cli": "integration/documents/test_readme_commands.py",
    "config/reading": "unit/config/test_model.py",
    "delivery/http_put": "integration/delivery/test_http_put.py",
    "delivery/outbox": "integration/delivery/test_object_store.py",
    "delivery/send": "integration/delivery/test_http_put.py",
    "delivery/store_upload": "integration/delivery/test_object_store.py",
    "artifact/engine_files": "unit/artifact/test_pack.py",
    "cache/keys": "unit/cache/test_key_portability.py",
    "fit/host": "unit/fit/test_assess.py",
    "fit/recorded": "unit/fit/test_assess.py",
    "fit/remedies": "unit/fit/test_assess.py",
    "fit/shape": "unit/fit/test_families.py",
    "fit/table": "unit/fit/test_assess.py",
    "inspection/checks": "unit/inspection/test_readiness.py",
    "inspection/serving": "unit/inspection/test_readiness.py",
    "inspection/tokenizer_readiness": "unit/inspection/test_readiness.py",
    "inspection/tokenizer_trial": "integration/command_line/test_inspect_command.py",
    "model_source/hub": "integration/downloads/test_hub_models.py",
    "model_source/model_types": "integration/downloads/test_hub_models.py",
    "model_source/record": "unit/model_source/test_source_parts.py",
    "model_source/source": "integration/downloads/test_hub_models.py",
    "model_source/tar": "integration/downloads/test_tar_models.py",
    "model_source/tar_reader": "integration/downloads/test_tar_models.py",
    "model_source/transfer": "integration/downloads/test_hub_models.py",
    "net/retrying": "unit/model_source/test_source_parts.py",
    "net/stream": "unit/model_source/test_source_parts.py",
    "observer": "integration/command_line/test_cache.py",
    "pipeline": "integration/command_line/test_cache.py",
    "preflight/parser_check": "integration/preflight/test_preflight.py",
    "preflight/preview": "integration/command_line/test_cache.py",
    "preflight/probe/parser_probe": "integration/preflight/test_preflight.py",
    "preflight/probe/probe_attempt": "integration/preflight/test_preflight_mistakes.py",
    "preflight/probe/probe_guard": "integration/preflight/test_preflight.py",
    "preflight/probe/probe_watch": "integration/preflight/test_preflight_programs.py",
    "preflight/validation": "integration/preflight/test_preflight_mistakes.py",
    "provenance": "integration/command_line/test_report_page.py",
    "report/charts": "unit/report/test_page.py",
    "report/markup": "unit/report/test_page.py",
    "report/style": "unit/report/test_page.py",
    "step/failure": "unit/step/test_run.py",
    "step/log": "unit/step/test_run.py",
    "workspace/disk": "integration/faults/test_disk.py",
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
