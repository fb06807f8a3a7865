"""Feature views as their authors write them, for the tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.features.feature_view import FeatureView
from gateway.features.view_parameters import feature_view
from gateway.tensor import Datatype, TensorSpec

FEAST = {"layout": "feast", "project": "shop", "feature_view": "user_stats"}
FEAST_KEYS = (("user_id", Datatype.INT64), ("country", Datatype.BYTES))
FEAST_FEATURES = (
    ("purchases", Datatype.INT64, 1),
    ("visits", Datatype.INT32, 1),
    ("spent", Datatype.FP64, 1),
    ("score", Datatype.FP32, 1),
    ("loyal", Datatype.BOOL, 1),
    ("city", Datatype.BYTES, 1),
    ("embedding", Datatype.FP32, 3),
    ("days", Datatype.INT64, 2),
    ("tags", Datatype.BYTES, 2),
)
USERS = {"key": "user:{user_id}"}


def view(
    parameters: Mapping[str, str],
    *,
    keys: Sequence[tuple[str, Datatype]] = (("user_id", Datatype.INT64),),
    features: Sequence[tuple[str, Datatype, int]] = (("score", Datatype.FP32, 1),),
) -> FeatureView:
    """The view of a configuration with these parameters, input types and output types with the size of a row."""
    inputs = tuple(TensorSpec(name, datatype, (-1, 1)) for name, datatype in keys)
    outputs = tuple(TensorSpec(name, datatype, (-1, size)) for name, datatype, size in features)
    return feature_view("users", parameters, inputs, outputs)


def write_view(
    repository: Path,
    name: str,
    parameters: Mapping[str, str],
    *,
    keys: Sequence[tuple[str, Datatype]] = (("user_id", Datatype.INT64),),
    features: Sequence[tuple[str, Datatype, int]] = (("score", Datatype.FP32, 1),),
    rows: int = 64,
) -> None:
    """Writes the feature view into the repository, as version 1."""
    lines = ['backend: "features"', f"max_batch_size: {rows}"]
    lines += [f'input {{ name: "{key}" data_type: {datatype.config_name} dims: [ 1 ] }}' for key, datatype in keys]
    lines += [
        f'output {{ name: "{feature}" data_type: {datatype.config_name} dims: [ {size} ] }}'
        for feature, datatype, size in features
    ]
    lines += [
        f'parameters {{ key: "{parameter}" value {{ string_value: "{text}" }} }}'
        for parameter, text in parameters.items()
    ]
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text("\n".join(lines) + "\n")
