# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The page about the products names all that is in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from lsst.astroclearnet.adapters import FEW_EXPOSURES
from lsst.astroclearnet.tasks import (
    InjectSourcesConnections,
    MakeColorPicturesConnections,
    MakeDeblenderCoaddConnections,
    MakePropertyMapsConnections,
    MakeTractPictureConnections,
    MeasureInjectionsConnections,
    MeasureObjectsConnections,
    MeasureRestorationConnections,
    RestoreCoaddBandsConnections,
    RestoreCoaddConnections,
    SummarizeRestorationConnections,
    TrainRestorationBandsConnections,
    TrainRestorationConnections,
)

TOP = Path(__file__).parents[1]
CODE = TOP / "python" / "lsst" / "astroclearnet"
PAGE = (TOP / "doc" / "lsst.astroclearnet" / "products.rst").read_text()


def string_keys(tree: ast.AST) -> Iterator[str]:
    """Return the literal keys of dictionaries, and of ``metadata[...]``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            yield from (key for key in keys if isinstance(key, str))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("metadata"):
            if isinstance(node.slice, ast.Constant):
                yield str(node.slice.value)
            elif isinstance(node.slice, ast.JoinedStr) and isinstance(node.slice.values[0], ast.Constant):
                # Such as dropped_0, dropped_1 ...
                yield f"{node.slice.values[0].value!s}<n>"


def functions(path: str, names: set[str]) -> list[ast.FunctionDef]:
    """Return functions of a file by their names."""
    tree = ast.parse((CODE / path).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {node.name for node in found} == names
    return found


KEYS = sorted(
    {
        key
        for path, names in {
            "tasks/_metrics.py": {"make_metrics", "_exposures", "_offsets", "_image"},
            "tasks/_used_network.py": {"network_metrics"},
            "tasks/_detection_coadd.py": {"make_detection_coadd"},
            "tasks/_products.py": {
                "_coadd_metadata",
                "_demand_planes",
                "_mask_planes",
                "describe_joint",
                "describe_software",
                "make_linear_coadd",
            },
            "tasks/_restore_patch.py": {"record_plan", "record_usage", "_record"},
            "tasks/measure_restoration.py": {"run"},
            "tasks/make_property_maps.py": {"run"},
            "tasks/make_tract_picture.py": {"run"},
            "tasks/_quality_metrics.py": {"exposure_metrics", "image_metrics"},
            "tasks/_quality_limits.py": {"judge"},
            "tasks/measure_injections.py": {"run"},
            "tasks/_injections.py": {"measure_injections", "injection_metrics"},
            "metrics/_injections.py": {"count_recovered", "injection_bins"},
            "tasks/_training_patches.py": {"record"},
            "tasks/train_restoration.py": {"run"},
            "tasks/train_restoration_bands.py": {"run"},
            "adapters/_restoration_model.py": {"model_to_dict", "joint_model_to_dict"},
            "tasks/_training_products.py": {"make_provenance", "make_training_metrics", "_count_samples"},
        }.items()
        for function in functions(path, names)
        for key in string_keys(function)
    }
    # Parts of the f-string that joins groups and keys of the metrics.
    - {"<n>"}
)
REASONS = sorted(
    {
        argument.value
        for path in [*(CODE / "adapters").rglob("*.py"), *(CODE / "tasks").glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "UnusableExposureError"
        for argument in node.args[:1]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
)


def test_there_are_keys_and_reasons() -> None:
    """If this fails, the tests below test nothing."""
    assert {"psf_consistent", "stop_reason", "plan_disk", "dropped_<n>", "linear_penalty_weight"} <= set(KEYS)
    assert {"no_psf", "not_calibrated", "duplicate"} <= set(REASONS)


def test_keys_are_described() -> None:
    """If this fails, a dataset has a key that no page explains."""
    assert [key for key in KEYS if not re.search(rf"\b{re.escape(key)}", PAGE)] == []


def test_reasons_are_described() -> None:
    """If this fails, a user cannot know why an exposure was left out."""
    assert [reason for reason in REASONS if f"``{reason}``" not in PAGE] == []


def test_datasets_are_described() -> None:
    """If this fails, an output has no section."""
    assert FEW_EXPOSURES in PAGE
    for connections in (
        RestoreCoaddConnections,
        MeasureRestorationConnections,
        MeasureInjectionsConnections,
        MeasureObjectsConnections,
        SummarizeRestorationConnections,
        TrainRestorationConnections,
    ):
        for name in connections.outputs:
            connection = getattr(connections, name)
            assert f"``{name}`` ({connection.storageClass})\n===" in PAGE
    (injected,) = InjectSourcesConnections.outputs
    storage = getattr(InjectSourcesConnections, injected).storageClass
    assert f"``injected_visit_image`` ({storage})\n===" in PAGE
    name = RestoreCoaddBandsConnections.restored_coadd_detection.name
    assert f"``{name.format(output_name='restored_coadd_joint')}`` (CellCoadd)\n===" in PAGE
    for name in TrainRestorationBandsConnections.outputs:
        trained = getattr(TrainRestorationBandsConnections, name).name
        assert f"``{trained.format(model_name='restoration_model_joint')}``" in PAGE
    names = [
        getattr(connections, name).name
        for connections in (
            MakeColorPicturesConnections,
            MakeDeblenderCoaddConnections,
            MakeTractPictureConnections,
        )
        for name in connections.outputs
    ]
    for name in names:
        assert f"``{name.format(output_name='restored_coadd', reference_name='deep_coadd')}``" in PAGE
    assert [name for name in MakePropertyMapsConnections.outputs if f"``{name}``" not in PAGE] == []
