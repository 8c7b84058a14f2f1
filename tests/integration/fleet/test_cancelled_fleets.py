"""A fleet that is cancelled before it was ever run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.fleet.fleet_house import FleetHouse


@pytest.mark.slow
def test_a_fleet_that_is_cancelled_before_its_first_run_can_be_named_and_resumed(house: FleetHouse) -> None:
    told = house.json("cancel", "tiny.yaml")
    stands = house.json("status", told["cancelled"])
    assert (stands["cancelled"], stands["counts"]) == (True, {"waiting": 4})
    stopped = house.json(
        "resume", stands["address"], "--unless-cancelled", code=130
    )  # as the job of --detach
    assert stopped["type"] == "FleetCancelled"
    assert len(house.json("resume", told["cancelled"])["delivered"]) == 4
    assert house.json("status", stands["address"])["cancelled"] is False
    nowhere = f"{stands['address']}-nope"
    for command in (["resume"], ["status"], ["cancel"], ["logs"]):
        more = ["float16-1"] if command == ["logs"] else []
        refused = house.json(*command, nowhere, *more, code=2)
        assert (refused["type"], refused["kind"]) == ("BadArgument", "config")
        assert refused["error"] == f"{nowhere} holds no plan.json; check the address"
    assert not Path(nowhere.removeprefix("file://")).exists()
