"""The ``export`` command: write a fitted model as an ONNX file."""

import argparse

from rich.console import Console
from rich.filesize import decimal

from indad.cli.console import path_argument, print_line, progress_bar
from indad.cli.predict import add_model_options, choose_threshold
from indad.inference.export import check_packages, export, images_of_run
from indad.inference.loading import choose_experiment, load_model
from indad.inference.photos import list_photos

EPILOG = """\
The file takes decoded images, uint8 RGB of shape (batch, height, width, 3), and gives their
scores and anomaly maps, and with a threshold the verdicts. Before it is written, its scores and
verdicts are compared with the model's on the test images of the run, or on --images. It is
written only if all verdicts are equal and all scores agree to a relative difference of 1e-4.

docs/deployment.md describes inputs, outputs and metadata, with an example.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "export",
        description="Write a fitted PaDiM or PatchCore model as one ONNX file.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    parser.set_defaults(run=run)
    add_model_options(parser)
    parser.add_argument("file", metavar="FILE.onnx", type=path_argument, help="the file to write")
    parser.add_argument(
        "--images",
        metavar="PATH",
        nargs="+",
        type=path_argument,
        help="images and folders to compare scores on (default: the test images of the run)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Export a model; return the exit code.

    Raises:
        IndadError: the model cannot be exported, or the file's scores differ from the model's.
    """
    check_packages()
    path, calibration = choose_experiment(arguments.model, arguments.experiment)
    threshold = choose_threshold(path, calibration, arguments.false_alarms, arguments.threshold)
    images = list_photos(arguments.images) if arguments.images else images_of_run(path)
    model = load_model(
        arguments.model,
        experiment=arguments.experiment,
        weights=arguments.weights,
        device="cpu",
    )
    model.threshold = threshold
    print_line(console, f"model      {path}")
    if threshold is not None:
        print_line(console, f"threshold  {threshold.score:.5g}: {threshold.source}")
    with progress_bar(console, "images compared") as progress:
        parity = export(model, arguments.file, images, progress)
    print_line(
        console,
        f"compared   {parity.images} images: the same verdicts, scores differ by at most "
        f"{parity.score:.1g} (relative), maps by {parity.map:.1g} of their maximum",
    )
    print_line(
        console,
        f"time       {1000 * parity.seconds:.0f} ms per image with onnxruntime, "
        f"{1000 * parity.model_seconds:.0f} ms with predict, both on the CPU",
    )
    print_line(console, f"wrote      {arguments.file}, {decimal(arguments.file.stat().st_size)}")
    return 0
