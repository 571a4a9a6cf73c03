"""Label efficiency of VIS-MAE on real images: pretrain once, then finetune on few and on all labels, beside baselines.

    python Testing/benchmarks/vis_mae_labels.py --data FOLDER --out FOLDER [--jobs 2] [--only chest breast pneumonia]

FOLDER of --data holds chest_xray_lungs, breast_ultrasound and pneumonia_28px. Killed or stopped, the same command goes
on where it was; what is finished is never computed again. OUT/results.md has the tables, OUT/results/ the values of
every point and every scored case, OUT/chest/report.html (and so on) the charts.

The encoder is pretrained on training and unlabelled images of all three sets (never on validation or test images).
Each finetuning sees its labelled cases alone and has the same fixed schedule in every arm. To compare encoders, give
them by name; each becomes an arm, and the scratch arm follows the first:

    ... --only chest --cases all --arms pretrained --encoders dense=runs/dense sparse=runs/sparse
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmae.cli.app import DONE, run
from medmae.errors import BadInput
from medmae.files import read_json, write_json, write_text
from medmae.finetuning.curve_points import Point, row_of
from medmae.finetuning.curve_summary import cases_csv, results_csv, summarise
from medmae.reports.curve_report import METRICS, labels_of, name_of, signed, verdict
from medmae.run_folder import RunFolder

CHEST, BREAST, PNEUMONIA = "chest_xray_lungs", "breast_ultrasound", "pneumonia_28px"
ARMS = ("pretrained", "scratch", "unet")


@dataclass(frozen=True)
class Experiment:
    """A table: which dataset, which numbers of labelled cases, which arms."""

    name: str
    title: str
    dataset: Callable[[Path, Path], Path]
    cases: tuple[str, ...]
    arms: tuple[str, ...]
    is_segmentation: bool = False


EXPERIMENTS = (
    Experiment("chest", "Chest X-ray: lungs (segmentation)", lambda data, _: data / CHEST / "dataset_segmentation.json",
               ("4", "16", "all"), ARMS, is_segmentation=True),
    Experiment("breast", "Breast ultrasound: normal, benign, malignant (classification)",
               lambda data, _: data / BREAST / "dataset_classification.json", ("16", "all"), ARMS[:2]),
    Experiment("pneumonia", "Chest X-ray of children, 28 x 28 pixels: pneumonia (classification)",
               lambda _, out: out / "data" / PNEUMONIA / "dataset.json", ("16", "64", "all"), ARMS[:2]),
)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in EXPERIMENTS], help="some tables only")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once (default 2)")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--cases", nargs="+", help="numbers of labelled cases instead of each table's own")
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="some arms only")
    parser.add_argument("--encoders", nargs="+", default=[], metavar="NAME=MODEL",
                        help="encoders to compare instead of the one that is pretrained here")
    parser.add_argument("--pretrain-steps", type=int, default=2000)
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--pretrain-set", nargs="+", default=[], metavar="KEY=VALUE", help="passed to medmae pretrain")
    parser.add_argument("--pneumonia-images", type=int, default=512,
                        help="of the 2423 small images that pretraining sees, so that the other sets are not drowned")
    parser.add_argument("--segmentation-steps", type=int, default=450)
    parser.add_argument("--classification-steps", type=int, default=200)
    parser.add_argument("--finetune-set", nargs="+", default=[], metavar="KEY=VALUE",
                        help="passed to every finetuning, for example learning_rate=3e-3")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"),
                        help="of pretraining and finetuning; auto: bf16 where the processor computes it")
    return parser.parse_args()


def main() -> int:
    """Everything that is missing, then the tables; the exit code of the first part that did not end well."""
    arguments = parse_arguments()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    missing = [name for name in (CHEST, BREAST, PNEUMONIA) if not (data / name).is_dir()]
    if missing:
        raise BadInput(f"The folder {data} has no {', '.join(missing)}. Give the folder that holds the data sets.")
    write_pneumonia(data / PNEUMONIA, out / "data" / PNEUMONIA)
    encoders = dict(_name_and_path(text) for text in arguments.encoders) or {"pretrained": out / "encoder"}
    if not arguments.encoders:
        perform(out / "encoder", pretraining_command(arguments, data, out))
    sections = []
    for experiment in EXPERIMENTS:
        if arguments.only and experiment.name not in arguments.only:
            continue
        rows, commands = [], []
        for number, (name, encoder) in enumerate(encoders.items()):
            arms = [arm for arm in arguments.arms or experiment.arms
                    if arm in experiment.arms and (number == 0 or arm == "pretrained")]
            folder = out / (experiment.name if number == 0 and not arguments.encoders else f"{experiment.name}-{name}")
            if arms:
                command = curve_command(arguments, experiment, experiment.dataset(data, out), encoder, arms, folder)
                perform(folder, command)
                commands.append(command)
                rows += [row | {"arm": name if row["arm"] == "pretrained" else row["arm"]} for row in rows_of(folder)]
        if rows:
            sections.append(write_tables(out / "results", experiment, rows, commands, (data, out)))
    write_text(out / "results.md", "\n\n".join([head(arguments, data, out), *sections]) + "\n")
    print((out / "results.md").read_text(encoding="utf-8"))
    return DONE


def perform(folder: Path, command: Sequence[str]) -> None:
    """Start or continue a run with the ``medmae`` command, in this process.

    Raises:
        SystemExit: it did not end well, or was stopped.
    """
    noted = folder.parent / "commands.json"
    known = read_json(noted, "list of commands") if noted.is_file() else {}
    if known.get(folder.name) == list(command):  # otherwise the command itself says what must not change
        return
    print(f"$ medmae {shlex.join(command)}", file=sys.stderr, flush=True)
    code = run([*command, "--resume"])
    if code != DONE or RunFolder(folder).state()["state"] != "done":
        print(f"{folder.name} is not finished. The same command goes on from here.", file=sys.stderr)
        sys.exit(code or 1)
    write_json(noted, known | {folder.name: list(command)})


def pretraining_command(arguments: argparse.Namespace, data: Path, out: Path) -> list[str]:
    """One VIS-MAE encoder of the training images of all three sets."""
    dataset = write_pretraining_list(arguments, data, out)
    return ["pretrain", "--dataset", str(dataset), "--method", "vis-mae", "--preset", "tiny",
            "--steps", str(arguments.pretrain_steps), "--seed", str(arguments.pretrain_seed),
            "--set", f"precision={arguments.precision}", *arguments.pretrain_set, "--out", str(out / "encoder")]


def curve_command(arguments: argparse.Namespace, experiment: Experiment, dataset: Path, encoder: Path,
                  arms: Sequence[str], folder: Path) -> list[str]:
    """The points of one table with one encoder."""
    steps = arguments.segmentation_steps if experiment.is_segmentation else arguments.classification_steps
    return ["curve", "--dataset", str(dataset), "--encoder", str(encoder),
            "--cases", *(arguments.cases or experiment.cases), "--seeds", *arguments.seeds, "--arms", *arms,
            "--steps", str(steps), "--jobs", str(arguments.jobs), "--set", f"precision={arguments.precision}",
            *arguments.finetune_set, "--out", str(folder)]


def write_pretraining_list(arguments: argparse.Namespace, data: Path, out: Path) -> Path:
    """A dataset file of the images that pretraining may see, each with its modality.

    Raises:
        BadInput: an image of a training list stands in a validation or test list too.
    """
    items: dict[str, dict[str, str]] = {}
    held_out: set[str] = set()
    for files, modality in ((sorted((data / CHEST).glob("dataset*.json")), "DX"),
                            (sorted((data / BREAST).glob("dataset*.json")), "US")):
        for file in files:
            lists = read_json(file, "dataset file")
            held_out |= {str(file.parent / item["image"]) for key in ("validation", "test") for item in lists[key]}
            items |= {str(file.parent / item["image"]): {"subject": item["subject"], "modality": modality}
                      for key in ("training", "unlabeled") for item in lists.get(key, ())}
    both = sorted(set(items) & held_out)
    if both:
        raise BadInput(f"{len(both)} training images are in a validation or test list too, the first {both[0]}. "
                       "Mend the dataset files.")
    file = out / "data" / PNEUMONIA / "dataset.json"
    small = read_json(file, "dataset file")["training"]
    chosen = np.random.default_rng(0).permutation(len(small))[:arguments.pneumonia_images]
    items |= {str(file.parent / small[number]["image"]): {"subject": small[number]["subject"], "modality": "DX"}
              for number in sorted(chosen.tolist())}
    listed = {"name": "pretraining", "modality": {"0": "DX"},
              "unlabeled": [{"image": image, **facts} for image, facts in items.items()]}
    path = out / "data" / "pretraining.json"
    write_json(path, listed)
    return path


def write_pneumonia(source: Path, folder: Path) -> None:
    """The arrays of the set as pictures with a case list; its official validation part is the list that is scored."""
    if (folder / "dataset.json").is_file():
        return
    import SimpleITK as sitk  # noqa: N813 - the usual name

    arrays = np.load(source / "pneumoniamnist_dev.npz", allow_pickle=False)
    lists: dict[str, list[dict[str, Any]]] = {}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for part, key in (("train", "training"), ("val", "test")):
        lists[key] = []
        pairs = zip(arrays[f"{part}_images"], arrays[f"{part}_labels"].ravel(), strict=True)
        for number, (picture, label) in enumerate(pairs):
            name = f"{part}_{number:04d}"
            sitk.WriteImage(sitk.GetImageFromArray(picture), str(folder / "images" / f"{name}.png"))
            lists[key].append({"image": f"images/{name}.png", "label": int(label), "subject": name})
    write_json(folder / "dataset.json", {"name": PNEUMONIA, "task": "classification", "channel_names": {"0": "DX"},
                                         "labels": {"normal": 0, "pneumonia": 1}, **lists})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The finished points of a curve, with their results."""
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    points = [(Point(line["arm"], line["labels"], int(line["seed"])), line) for line in lines]  # type: ignore[arg-type]
    rows = [row_of(point, point.folder(folder), int(line["training_cases"])) for point, line in points]
    return [row for row in rows if row is not None]


def write_tables(folder: Path, experiment: Experiment, rows: list[dict[str, Any]], commands: Sequence[Sequence[str]],
                 roots: tuple[Path, Path]) -> str:
    """Raw values as CSV and JSON, and the section of the results page."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(rows)
    write_text(folder / f"{experiment.name}.csv", results_csv(rows))
    write_text(folder / f"{experiment.name}-cases.csv", cases_csv(rows))
    write_json(folder / f"{experiment.name}-summary.json", summary)
    metric = METRICS.get(summary[0]["metric"], summary[0]["metric"])
    arms = list(dict.fromkeys(arm for row in summary for arm in row["arms"]))
    text = [f"## {experiment.title}", ""]
    text += [f"{metric} of {summary[0]['cases']} test cases of {summary[0]['subjects']} subjects: mean ± standard "
             "deviation over the seeds (95 % interval over the subjects).", ""]
    text += table(["labelled cases", *map(name_of, arms)],
                  [[labels_of(row), *(spread(row["arms"].get(arm)) for arm in arms)] for row in summary])
    differences = [[labels_of(row), f"{name_of(one['arm'])} − {name_of(one['against'])}",
                    signed(one["difference"]), interval(one["interval"]), verdict(one)]
                   for row in summary for one in row["differences"]]
    if differences:
        text += ["", "Differences, paired by seed and case:", ""]
        text += table(["labelled cases", "arms", metric, "95 % interval", "says"], differences)
    seconds = {arm: [row["train_seconds"] for row in rows if row["arm"] == arm and row["train_seconds"]]
               for arm in arms}
    told = "; ".join(f"{name_of(arm)} {np.mean(values):.0f} s (longest {max(values):.0f} s)"
                     for arm, values in seconds.items() if values)
    text += ["", f"Training time of a point: {told}.", "", "```sh"]
    text += [_readable(command, *roots) for command in commands]
    return "\n".join([*text, "```"])


def head(arguments: argparse.Namespace, data: Path, out: Path) -> str:
    """When, where and how everything was measured."""
    import torch

    from medmae.inference.device import computes_bf16

    bf16 = arguments.precision == "bf16" or (arguments.precision == "auto" and computes_bf16(torch.device("cpu")))
    lines = ["# Label efficiency of VIS-MAE", "",
             f"{datetime.date.today().isoformat()}, {processor()}, {os.cpu_count()} cores, "
             f"{'a GPU' if torch.cuda.is_available() else 'no GPU'}, torch {torch.__version__}, Python "
             f"{platform.python_version()}; {'bf16' if bf16 else 'fp32'} arithmetic; {arguments.jobs} trainings at "
             f"once; seeds {', '.join(arguments.seeds)}.", ""]
    if not arguments.encoders:
        listed = read_json(out / "data" / "pretraining.json", "list of images")["unlabeled"]
        of_set = {name: sum(f"/{name}/" in item["image"] for item in listed) for name in (CHEST, BREAST, PNEUMONIA)}
        lines += [f"Pretraining: {len(listed)} images ("
                  + ", ".join(f"{name} {count}" for name, count in of_set.items())
                  + f"), {training_time(out / 'encoder')}.", "", "```sh",
                  _readable(pretraining_command(arguments, data, out), data, out), "```"]
    return "\n".join(lines)


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.processor() or platform.machine())


def training_time(folder: Path) -> str:
    """How long a run's training steps took, as text."""
    from medmae.finetuning.curve_points import train_seconds
    from medmae.reports.run_facts import duration

    seconds = train_seconds(folder)
    return "time not known" if seconds is None else duration(seconds)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def spread(arm: dict[str, Any] | None) -> str | None:
    """Mean ± standard deviation (interval)."""
    if arm is None or arm["mean"] is None:
        return None
    text = f"{arm['mean']:.3f}" + (f" ± {arm['sd']:.3f}" if arm["sd"] is not None else "")
    return text + (f" ({arm['interval'][0]:.3f} to {arm['interval'][1]:.3f})" if arm["interval"] else "")


def interval(bounds: Sequence[float] | None) -> str | None:
    """The bounds of a difference."""
    return None if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"


def _readable(command: Sequence[str], data: Path, out: Path) -> str:
    text = shlex.join(["medmae", *command])
    return text.replace(str(out), "OUT").replace(str(data), "DATA")


def _name_and_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not Path(path).expanduser().exists():
        raise BadInput(f"'{text}' is not of the form NAME=MODEL with an existing model or run folder. "
                       "For example: --encoders dense=runs/dense sparse=runs/sparse")
    if name in ARMS[1:]:
        raise BadInput(f"An encoder cannot be called '{name}': that is an arm without one. Choose another name.")
    return name, Path(path).expanduser().absolute()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"Error: {error}")
