"""Which versions one route may offer to the same clients."""

from pathlib import Path

import pytest

from gateway.errors import FailedPrecondition
from gateway.serving.route_versions import check_versions
from gateway.tensor import Datatype
from tests import models
from tests.routing.documents import ab, document
from tests.serving.catalogs import opened


async def test_versions_of_one_route_take_and_give_the_same_tensors(tmp_path: Path) -> None:
    contents = {"1": models.affine(), "2": models.affine(3.0), "3": models.affine(features=5), "4": b"no model"}
    contents["5"] = models.identity(Datatype.FP64)
    for name, content in contents.items():
        models.write_version(tmp_path / "models", "m", name, content)
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        await live.catalog.require("m", ["1", "2", "3", "5"])
        for second, said in (
            ("2", ""),
            ("3", "versions '1' and '3' of model 'm' differ in inputs or outputs"),
            ("4", "version '4' is FAILED"),
            ("5", "versions '1' and '5' of model 'm' differ in inputs or outputs"),
            ("6", "has no version '6'"),
        ):
            asked = document(arms={"a": {"version": "1"}, "b": {"version": second}}, strategy=ab(a=50, b=50))
            if not said:
                check_versions(live.catalog, asked)
                continue
            with pytest.raises(FailedPrecondition, match=said):
                check_versions(live.catalog, asked)
