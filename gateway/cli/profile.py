"""gateway profile: what a version's inputs and outputs looked like where it was right."""

from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from enum import StrEnum
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.cli.lake_record import lake_directory
from gateway.cli.printing import Format, show
from gateway.cli.profile_labels import baseline_of_columns, with_logged_labels
from gateway.cli.profile_table import describe, show_profile_table, summary
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DEFAULT_SERVER, DataDir, Model, Output, Server
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import Value, moment

if TYPE_CHECKING:  # numpy and Arrow are loaded by the commands that need them
    from gateway.drift.statistics.column import Column
    from gateway.drift.statistics.reference_profile import Profile

app = typer.Typer(no_args_is_help=True, help="Build and read reference profiles, which drift is measured against.")


class GivenOrder(StrEnum):
    """Names what the operator says of the order of a file's rows."""

    UNSAID = "unsaid"
    TIME = "time"
    NONE = "none"


Version = Annotated[str, typer.Option("--version", help="The version that the profile is of.")]


@app.command(
    epilog="Example: gateway profile build flights --version 2 --from training.csv --columns distance,delay,airline"
)
def build(
    model: Model,
    version: Version,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Training data: .csv, .parquet or .npz, in the order of time.")
    ] = None,
    window: Annotated[
        str, typer.Option("--window", help="Pin this window of the log: START..END, a date, or the last 7d.")
    ] = "",
    replay: Annotated[
        Path | None, typer.Option("--replay", help="As --from, and send the rows through the version for its outputs.")
    ] = None,
    columns: Annotated[str, typer.Option("--columns", help="The columns to take, in the order of the features.")] = "",
    categories: Annotated[str, typer.Option("--categories", help="Features whose numbers are categories.")] = "",
    tensor: Annotated[
        str, typer.Option("--tensor", help="The columns are the features of this input; no server is asked.")
    ] = "",
    where: Annotated[str, typer.Option("--where", help="With --window: an SQL condition on the rows.")] = "",
    label: Annotated[
        str, typer.Option("--label", help="The column of labels: with --replay, or beside columns of answers.")
    ] = "",
    labelled: Annotated[
        str, typer.Option("--labelled", help="The window of the log whose labels say how good the version was.")
    ] = "",
    classes: Annotated[str, typer.Option("--classes", help="Names of classes 0, 1, ... where labels are texts.")] = "",
    order: Annotated[
        GivenOrder,
        typer.Option("--order", help="What the order of the file's rows is: that of time, or one that means nothing."),
    ] = GivenOrder.UNSAID,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Build the reference profile of a version and store it as the newest revision.

    From training data, from a window of the prediction log, or by sending rows through the version. Columns are matched
    with the model's features by name, or by their order if there are as many. A gateway that runs counts in the new
    profile's bins from its next minute on; --replay's requests are logged like any others, with ids profile-0 and on.

    Labels (those that a --window has, or --label, or --labelled) say how good the version was: what performance is
    compared with, and what estimates without labels rest on. Take rows that the version was not trained on.

    How far the reference's own windows are apart raises thresholds. Where rows are sorted by something else than time
    that would hide drift, so a file that looks like it is refused until --order says what its order is. Nothing is
    stored unless all of the profile is right.
    """
    given = [name for name, one in (("--from", from_file), ("--window", window), ("--replay", replay)) if one]
    if len(given) != 1:
        raise Failure(Exit.USAGE, f"give one of --from, --window and --replay, not {' and '.join(given) or 'none'}")
    beside = {"--columns": columns, "--categories": categories, "--tensor": tensor} if window else {"--where": where}
    beside |= {"--label": label, "--order": "" if order is GivenOrder.UNSAID else order.value} if window else {}
    if idle := [name for name, text in beside.items() if text]:
        raise Failure(Exit.USAGE, f"{idle[0]} has no meaning with {given[0]}")
    if label and labelled:
        raise Failure(Exit.USAGE, "give one of --label and --labelled, not both")
    try:
        if window:
            profile = _from_window(model, version, window, where, data_dir, server)
        else:
            path = from_file or replay
            assert path is not None
            asked = "" if tensor and not replay else server
            rows = _read(model, version, path, _list(columns), tensor, asked, label, replayed=bool(replay))
            source = f"{'replay of ' if replay else ''}{path.name}"
            profile = _build(model, version, rows, _list(categories), source, order)
            if rows.label is not None:
                baseline = baseline_of_columns(rows.label, rows.outputs, _list(classes), source)
                profile = changed(profile, baseline=baseline)
        if window or labelled:
            named = labelled or window
            profile = with_logged_labels(
                profile, named, "" if labelled else where, _list(classes), data_dir, asked=bool(labelled)
            )
        describe(profile)  # what cannot be shown is not stored
        profile = _saved(profile, data_dir)
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except (GatewayError, OSError) as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    show_profile_table(profile, output)


@app.command("list", epilog="Example: gateway profile list flights")
def list_profiles(
    model: Annotated[str, typer.Argument(help="Only this model.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """List the reference profiles, every revision of each."""
    from gateway.drift.profile_files import ProfileFiles

    files = ProfileFiles(data_dir)
    try:
        profiles = [
            files.load(name, version, revision)
            for name, version in files.versions(model)
            for revision in files.revisions(name, version)
        ]
    except GatewayError as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    if model and not profiles:
        known = ", ".join(sorted({name for name, _ in files.versions()})) or "none"
        raise Failure(Exit.REFUSED, f"model {model!r} has no reference profile; there are those of: {known}")
    value: list[Value] = [summary(profile) for profile in profiles]
    rows: list[list[Value]] = [
        [
            p.model,
            p.version,
            p.revision,
            moment(int(p.created_at * 1e6)),
            p.rows,
            len(p.features),
            len(p.outputs),
            p.source,
        ]
        for p in profiles
    ]
    show(
        value,
        output,
        columns=("MODEL", "VERSION", "REVISION", "CREATED", "ROWS", "FEATURES", "OUTPUTS", "SOURCE"),
        rows=rows,
        note="" if rows else f"no profiles in {data_dir}",
    )


@app.command("show", epilog="Example: gateway profile show flights --version 2")
def show_profile(
    model: Model,
    version: Version,
    revision: Annotated[int, typer.Option("--revision", help="An older one; 0: the newest.", min=0)] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Show a reference profile: each feature with its kind, range, bins and what its own windows do."""
    from gateway.drift.profile_files import ProfileFiles

    try:
        profile = ProfileFiles(data_dir).load(model, version, revision or None)
    except GatewayError as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    show_profile_table(profile, output)


def _from_window(model: str, version: str, window: str, where: str, data_dir: Path, server: str) -> "Profile":
    """Returns the profile of the version's rows in that window.

    Features have the names of the model's configuration (from the log, or a gateway), else those of an older profile.
    """
    with analysis():
        from gateway.drift.report.lake_reader import Lake
        from gateway.drift.report.lake_selection import Selection
        from gateway.drift.report.reference import feature_names, reference_window
    from numpy.random import default_rng

    from gateway.cli.served_contract import configured_names
    from gateway.drift.profile_files import ProfileFiles
    from gateway.drift.report.span import parse_span

    span = parse_span(window, now_us=int(time() * 1e6))
    files = ProfileFiles(data_dir)
    older = [files.load(model, version)] if files.revisions(model, version) else []
    with Lake(lake_directory(data_dir)) as lake:
        selection = Selection(model, span, versions=(version,), where=where)
        profile = reference_window(
            lake,
            selection,
            rng=default_rng(0),
            created_at=time(),
            names={**feature_names(older), **configured_names(server, model, version)},
        ).profile
    # A column without any value was withheld by redaction: there is nothing to hold a window against.
    features = tuple(one for one in profile.features if one.missing < one.n)
    return changed(
        profile, version=version, features=features, source=profile.source + (f" where {where}" if where else "")
    )


class _Rows(NamedTuple):
    """Holds inputs, outputs and embeddings by their column in the log, and the other names of features."""

    inputs: "Mapping[str, Column]"
    outputs: "Mapping[str, Column]"
    names: Mapping[str, str]
    embeddings: Mapping[str, Any]
    label: "Column | None" = None


def _read(
    model: str, version: str, path: Path, columns: Sequence[str], tensor: str, server: str, label: str, *,
    replayed: bool,
) -> _Rows:  # fmt: skip
    """Returns the rows of a file as features of the model, which `server` describes unless it is "".

    If a label is named, the column of labels and the answers in the file are returned, too.
    """
    from gateway.cli.served_contract import ask_contract, inference, replay
    from gateway.drift.training import (
        Matched,
        Tensor,
        answer_columns,
        match,
        output_columns,
        read_file,
        read_vectors,
    )

    columns_read = read_file(path, columns)
    labels, answered = None, {}
    if label:
        labels = (read_file(path) if columns else columns_read).get(label)
        if labels is None:
            raise InvalidArgument(f"{path.name} has no column {label!r}, it has {', '.join(columns_read)}")
        answered = {} if replayed else answer_columns(read_file(path) if columns else columns_read)
        if not answered and not replayed:
            raise InvalidArgument(
                f"--label {label!r} needs to know what was answered: columns pred_class, pred_score or out.* beside it "
                "in the file, or --replay, which asks the version"
            )
        columns_read = {name: column for name, column in columns_read.items() if name != label and name not in answered}
    if not server:
        matched = match(columns_read, [Tensor(tensor, "", (-1, len(columns_read)) if len(columns_read) > 1 else (-1,))])
        return _Rows(matched.columns, answered, matched.names, {}, labels)
    with inference(server) as stub:
        contract = ask_contract(stub, model, version)
        embeddings = read_vectors(path, contract.inputs)
        alone = bool(embeddings) and not any(tensor.width for tensor in contract.inputs)
        matched = Matched({}, {}) if alone else match(columns_read, contract.inputs, contract.feature_names)
        answers = replay(stub, model, version, contract, matched.columns, embeddings) if replayed else {}
    outputs = output_columns(answers, classified=contract.classified) if replayed else {}
    return _Rows(matched.columns, outputs or answered, matched.names, embeddings, labels)


def _build(
    model: str, version: str, rows: _Rows, categories: Sequence[str], source: str, order: GivenOrder
) -> "Profile":
    """Returns the profile of these rows.

    Raises: InvalidArgument (the rows look sorted, and the order was not given).
    """
    from gateway.drift.statistics.building import build_profile
    from gateway.drift.statistics.calibration import RowOrder, doubt

    profile = build_profile(
        model,
        version,
        rows.inputs,
        rows.outputs,
        created_at=time(),
        source=source,
        categories=categories,
        names=rows.names,
        embeddings=rows.embeddings,
        order=RowOrder(order.value),
    )
    doubts = [why for feature in profile.watched if (why := doubt(feature))]
    if doubts and order is GivenOrder.UNSAID:
        more = f" (and of {len(doubts) - 1} more features)" if len(doubts) > 1 else ""
        raise InvalidArgument(
            f"{source} looks sorted, which would hide drift: {doubts[0]}{more}. Give the rows in the order of time; or "
            "say --order time (they are: thresholds become as large as that), or --order none (their order means "
            "nothing: rows are shuffled)"
        )
    return profile


def _saved(profile: "Profile", data_dir: Path) -> "Profile":
    from gateway.drift.profile_files import ProfileFiles

    return ProfileFiles(data_dir).save(profile)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
