"""The options that several commands share. Nothing heavy is imported: `boneage --help` reads this."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from boneage_ray.archives.archive import SPACINGS_MM

RecipeOption = Annotated[str, typer.Option("--recipe", help="Recipe name (see `boneage recipes`) or TOML file.")]
OutOption = Annotated[str, typer.Option("--out", help="Where the results go: a folder or s3://bucket/prefix.")]
ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model", help="Built-in model (see `boneage models`), or bundle (folder, s3://, wandb://); several: ensemble."
    ),
]
DatasOption = Annotated[
    list[str], typer.Option("--data", help="Prepared data; repeat if the models need different images.")
]
DataOption = Annotated[str, typer.Option("--data", help="Prepared data, made by `boneage prepare`.")]
SetOption = Annotated[list[str], typer.Option("--set", help="Override a recipe field: key=value, e.g. stage.epochs=3.")]
UpdateOption = Annotated[
    bool, typer.Option("--update", help="Do what is new or changed since OUT was written; drop what is gone.")
]
MaxFailuresOption = Annotated[
    float | None,
    typer.Option("--max-failures", min=0.0, max=1.0, help="End, exit 4, if more than this share of inputs failed."),
]
AllowOption = Annotated[list[str], typer.Option("--allow", help="AE title that may send; repeat for several.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete the earlier run that OUT holds.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit 4 if any input was rejected or failed.")]
GpuOption = Annotated[bool, typer.Option("--gpu", help="Use the cluster's GPUs.")]
ShapeOption = Annotated[
    str,
    typer.Option(
        "--shape",
        help="fused: each worker decodes and predicts; two-stage: all CPUs decode, GPUs predict; auto: the second with --gpu.",
    ),
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", help="What computes the network on CPUs: torch, or onnx (faster, extra `onnx`).")
]
ColumnOption = Annotated[
    list[str], typer.Option("--column", help="What a column of the table is: NAME=HEADING, such as sex=Geschlecht.")
]
ValueOption = Annotated[
    list[str], typer.Option("--value", help="What a cell of the sex column means: CELL=F, CELL=M or CELL=unknown.")
]
VoiOption = Annotated[
    str | None,
    typer.Option("--voi", help="DICOM gray levels: file (its window), or none (all); by default as the recipe says."),
]
HeaderGateOption = Annotated[
    bool | None,
    typer.Option(
        "--header-gate/--no-header-gate",
        help="Reject DICOM of another modality or region; by default as the recipe says.",
    ),
]
CoverageOption = Annotated[
    float | None,
    typer.Option(
        "--coverage", help="Share of true ages that an interval is to hold; by default the bundle's, mostly 0.9."
    ),
]
KeepOption = Annotated[
    str, typer.Option("--keep", help="What rows keep of file names: uri, stem, uid (SOP instance) or hash.")
]
SampleOption = Annotated[
    float, typer.Option("--sample", min=0.0, max=1.0, help="Look only at this share of the inputs, such as 0.01.")
]
SiteNamesOption = Annotated[
    bool, typer.Option("--site-names", help="Name the institutions of DICOM files; of a practice that may be a person.")
]
RouteOption = Annotated[
    bool, typer.Option("--route", help="Models of several tasks in one pass: each file goes to the one that it fits.")
]
ThumbnailsOption = Annotated[
    bool, typer.Option("--thumbnails", help="Show rejected pictures on the page. They are patient data.")
]
SpacingOption = Annotated[
    float | None, typer.Option("--pixel-spacing-mm", min=SPACINGS_MM[0], max=SPACINGS_MM[1], help="For every input.")
]
MaxMaeOption = Annotated[float | None, typer.Option("--max-mae", help="Exit 6 if the MAE is above this, in months.")]
OpenTestOption = Annotated[bool, typer.Option("--open-test", help="Landmarks: evaluate test before val; recorded.")]
PretrainDataOption = Annotated[
    str | None, typer.Option("--pretrain-data", help="Prepared data for a recipe's pretraining stages.")
]
TrackOption = Annotated[
    list[str], typer.Option("--track", help="Log to wandb, mlflow or tensorboard; repeat for several.")
]
PassEnvOption = Annotated[
    list[str], typer.Option("--pass-env", help="Name of a variable that the job gets from here; repeat for several.")
]
PixelGateOption = Annotated[
    bool | None,
    typer.Option(
        "--pixel-gate/--no-pixel-gate",
        help="Reject pictures unlike those that the model learnt from; by default as the recipe says.",
    ),
]
TwoHandsOption = Annotated[
    str | None,
    typer.Option("--two-hands", help="A film of two hands: reject it, or score its left half (left)."),
]
StabilityOption = Annotated[
    bool, typer.Option("--stability", help="Measure how far results move when 40 cases are changed; some minutes.")
]
SweepOption = Annotated[
    str | None,
    typer.Option(
        "--sweep", help="TOML file of settings and ranges: train many drawn recipes, stop the poor ones early."
    ),
]
SimilarOption = Annotated[
    bool,
    typer.Option(
        "--similar",
        help="Show the training cases most like those of the largest errors, if the terms of their data allow pictures.",
    ),
]
MinReplicasOption = Annotated[
    int | None, typer.Option("--min-replicas", min=1, help="Replicas of a model without load; with --max-replicas.")
]
MaxReplicasOption = Annotated[
    int | None,
    typer.Option("--max-replicas", min=1, help="Let the replicas of a model grow with the load, up to this."),
]
TargetRequestsOption = Annotated[
    float | None,
    typer.Option("--target-requests", min=0.1, help="Requests at once for each replica above which more start; 8."),
]
FormatOption = Annotated[
    list[str],
    typer.Option(
        "--format", help="csv, parquet, fhir, dicom-sr, dicom-sc or dicom-pr; repeat for several in one pass."
    ),
]
ToOption = Annotated[
    str,
    typer.Option(
        "--to", help="A folder, s3://bucket/prefix, or dicomweb+https://HOST/PATH; for one table also a file."
    ),
]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there already.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class ReadingFlags(NamedTuple):
    """The flags that change how a model reads files, as they are typed; None is as the recipe says."""

    voi: str | None = None
    header_gate: bool | None = None
    pixel_gate: bool | None = None
    two_hands: str | None = None


class GuardFlags(NamedTuple):
    """The flags of who may ask the service, for what, and how it is encrypted."""

    tokens: str | None = None
    allow_uris: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None


class ScalingFlags(NamedTuple):
    """The flags that let the replicas of a model follow the load; all None is one replica."""

    min_replicas: int | None = None
    max_replicas: int | None = None
    target_requests: float | None = None
