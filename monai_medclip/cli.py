"""The command line: `python -m monai_medclip VERB` for what is not a bundle run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_medclip import __version__
from monai_medclip.bundle_folder import BUNDLE_NAME, bundle_root

# A verb imports what it needs when it runs: `bundle`, which scripts call, would else wait seconds for the libraries.

__all__ = ["bundle_root", "main"]


def _bundle(arguments: argparse.Namespace) -> None:
    sys.stdout.write(bundle_root(arguments.name) + "\n")


def _summarize(arguments: argparse.Namespace) -> None:
    from monai_medclip.engines import summarize_runs

    sys.stdout.write(summarize_runs(arguments.runs).table(arguments.containing) + "\n")


def _check_figures(arguments: argparse.Namespace) -> None:
    from monai_medclip.engines import required_figures

    figures = required_figures(
        arguments.output_dir,
        zero_shot_auc=arguments.zero_shot_auc,
        nodule_auc=arguments.nodule_auc,
        recall_over_chance=arguments.recall_over_chance,
    )
    sys.stdout.writelines(f"{figure}\n" for figure in figures)
    missed = [figure.name for figure in figures if not figure.reached]
    if missed:
        raise SystemExit(f"{arguments.output_dir} misses {', '.join(missed)}")


def _phantom(arguments: argparse.Namespace) -> None:
    from monai_medclip.data import make_phantom

    manifest = make_phantom(
        arguments.folder,
        patients=arguments.patients,
        seed=arguments.seed,
        image_size=arguments.image_size,
        modality=arguments.modality,
        file_format=arguments.file_format,
        workers=arguments.workers,
        counterfactuals=arguments.counterfactuals,
    )
    sys.stdout.write(f"{manifest}\n")


def _app(arguments: argparse.Namespace) -> None:
    from monai_medclip.app.folder import app_folder

    sys.stdout.write(f"{app_folder(arguments.folder)}\n")


def _pack(arguments: argparse.Namespace) -> None:
    from monai_medclip.engines import pack_bundle

    sys.stdout.write(f"{pack_bundle(arguments.run_dir, arguments.folder)}\n")


def _dicom(arguments: argparse.Namespace) -> None:
    from monai_medclip.data import ArchiveError, parse_query
    from monai_medclip.engines import BatchRequest, run_dicom_batch

    try:
        summary = run_dicom_batch(
            BatchRequest(
                bundle=arguments.bundle,
                studies=arguments.studies,
                output=arguments.output,
                prompts=tuple(arguments.prompts),
                method=arguments.method,
                kinds=tuple(arguments.kinds),
                query=parse_query(arguments.query),
                stow=arguments.stow,
                resume=arguments.resume,
                device=arguments.device,
            )
        )
    except (ValueError, FileNotFoundError, ImportError, ArchiveError) as error:  # what the user can put right
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    sys.stdout.write(f"{summary}\n")
    if summary.failed:
        raise SystemExit(f"{summary.failed} failed: {summary.csv} names the rule and the remedy of each")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monai_medclip", description="Research use only, not a medical device."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    bundle = verbs.add_parser("bundle", help="print the folder of the bundle that is installed with the package")
    bundle.add_argument("--name", default=BUNDLE_NAME)
    bundle.set_defaults(run=_bundle)

    app = verbs.add_parser("app", help="make the folder of the MONAI Label app and print it, for start_server --app")
    app.add_argument("--folder", type=Path, help="where; by default medclip_app in the user's data folder")
    app.set_defaults(run=_app)

    pack = verbs.add_parser("pack", help="make a MONAI bundle of a trained run, to be handed on and served")
    pack.add_argument("run_dir", type=Path, help="output folder of a training run")
    pack.add_argument("folder", type=Path, help="of the bundle, new")
    pack.set_defaults(run=_pack)

    dicom = verbs.add_parser(
        "dicom",
        help="ask about every radiograph or CT of a folder or archive, and store heatmaps and report as DICOM",
        description="Credentials of an archive: MEDCLIP_DICOMWEB_USERNAME and MEDCLIP_DICOMWEB_PASSWORD, or "
        "MEDCLIP_DICOMWEB_TOKEN, in the environment. Research use only, not a medical device.",
    )
    dicom.add_argument("--bundle", required=True, type=Path, help="a training run's folder, or a packed bundle")
    dicom.add_argument("--studies", required=True, help="a folder, a file, or the address of a DICOMweb archive")
    dicom.add_argument(
        "--output",
        type=Path,
        default=Path("medclip_dicom"),
        help="folder of results.csv, and of the objects without --stow",
    )
    dicom.add_argument(
        "--prompts", nargs="+", default=(), help="findings or free text; the bundle's findings by default"
    )
    dicom.add_argument("--method", help="how heatmaps are made; the bundle's recommended one by default")
    dicom.add_argument(
        "--kinds",
        nargs="+",
        default=("parametric_map", "capture", "report"),
        choices=["parametric_map", "segmentation", "capture", "report"],
    )
    dicom.add_argument(
        "--query",
        nargs="+",
        default=(),
        metavar="ATTRIBUTE=VALUE",
        help="of an archive: Modality=DX StudyDate=20200101-20201231",
    )
    dicom.add_argument("--stow", metavar="URL", help="DICOMweb archive that results are stored in")
    dicom.add_argument("--resume", action="store_true", help="go on with the batch in --output")
    dicom.add_argument("--device", default="cpu", help="such as cuda")
    dicom.set_defaults(run=_dicom)

    summarize = verbs.add_parser("summarize", help="mean and spread of the figures of several runs (seeds)")
    summarize.add_argument("runs", nargs="+", type=Path, help="output folders that hold a metrics.json")
    summarize.add_argument("--containing", default="", help="only figures whose name contains this, such as auc")
    summarize.set_defaults(run=_summarize)

    check = verbs.add_parser("check-figures", help="fail when a run's figures are below the limits that are given")
    check.add_argument("output_dir", type=Path, help="output folder that holds a metrics.json")
    check.add_argument("--zero-shot-auc", type=float, help="mean over findings")
    check.add_argument("--nodule-auc", type=float)
    check.add_argument("--recall-over-chance", type=float, help="tie-aware text-to-image recall@5 divided by chance")
    check.set_defaults(run=_check_figures)

    phantom = verbs.add_parser("phantom", help="generate thorax phantoms with known findings, reports and masks")
    phantom.add_argument("folder", type=Path)
    phantom.add_argument("--patients", type=int, default=100)
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--image-size", type=int, default=224, help="pixels a side")
    phantom.add_argument("--modality", choices=["DX", "CT"], default="DX")
    phantom.add_argument("--file-format", choices=["dicom", "nifti"], default="dicom")
    phantom.add_argument("--workers", type=int, default=1, help="processes")
    phantom.add_argument("--counterfactuals", action="store_true", help="also the same patient without each finding")
    phantom.set_defaults(run=_phantom)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb; see ``python -m monai_medclip --help``.

    Args:
        argv: the words after the program's name; those of the process by default.
    """
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)
