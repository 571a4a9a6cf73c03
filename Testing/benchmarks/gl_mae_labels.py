"""Label efficiency of GL-MAE on real volumes: pretrain twice, then finetune on few and on all labels, beside baselines.

    python Testing/benchmarks/gl_mae_labels.py --data FOLDER --out FOLDER [--jobs 2] [--only hippocampus sarcoma]

FOLDER of --data holds hippocampus_mr and sarcoma_mr_t1. Killed or stopped, the same command goes on where it was; what
is finished is never computed again. OUT/results.md has the tables, OUT/results/ the values of every point and every
scored case, OUT/hippocampus/report.html (and so on) the charts.

Arms: "gl-mae" starts from an encoder that was pretrained with all terms, "mae" from one without the global-local terms
(masked reconstruction of the same views for as many steps), "scratch" is the same network with fresh weights, "dynunet"
MONAI's DynUNet with its usual recipe. Encoders see the training images of their set, without labels; each finetuning
sees its labelled cases alone. All arms see windows of the same size. What belongs to one arm is set by its name:

    ... --finetune-set scratch.learning_rate=2e-3 dynunet.steps=800
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from vis_mae_labels import Experiment, perform, processor, rows_of, training_time, write_tables  # the file beside this

from medmae.cli.app import DONE
from medmae.errors import BadInput
from medmae.files import write_text

ARMS = ("gl-mae", "mae", "scratch", "dynunet")
WITHOUT_CONSISTENCY = ("weight_global_to_global=0", "weight_global_to_local=0")


@dataclass(frozen=True)
class Volumes:
    """A set of volumes: its table, the window of all arms, and what pretraining is told beyond the preset."""

    table: Experiment
    window: tuple[int, int, int]
    pretraining: tuple[str, ...] = ()


SETS = (
    Volumes(Experiment("hippocampus", "Hippocampus in MR: anterior and posterior part",
                       lambda data, _: data / "hippocampus_mr" / "dataset.json", ("4", "8", "32", "all"), ARMS,
                       is_segmentation=True), (32, 48, 32)),
    Volumes(Experiment("sarcoma", "Soft-tissue sarcoma in T1 MR (4 test patients: nothing is claimed)",
                       lambda data, _: data / "sarcoma_mr_t1" / "dataset.json", ("4", "all"), ARMS,
                       is_segmentation=True),
            (48, 48, 48), ("global_size=[48,48,48]", "local_size=[32,32,32]")),
)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the two data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--only", nargs="+", choices=[one.table.name for one in SETS], help="some tables only")
    parser.add_argument("--preset", default="tiny-hybrid")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once (default 2)")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--cases", nargs="+", help="numbers of labelled cases instead of each table's own")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="some arms only")
    parser.add_argument("--pretrain-steps", type=int, default=400, help="of each encoder (default 400)")
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--pretrain-set", nargs="+", default=[], metavar="KEY=VALUE", help="passed to medmae pretrain")
    parser.add_argument("--finetune-set", nargs="+", default=[], metavar="[ARM.]KEY=VALUE",
                        help="passed to every finetuning, or to those of one arm")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"), help="of all trainings (default bf16)")
    return parser.parse_args()


def main() -> int:
    """Everything that is missing, then the tables; the exit code of the first part that did not end well."""
    arguments = parse_arguments()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    sections = []
    for volumes in SETS:
        name = volumes.table.name
        if arguments.only and name not in arguments.only:
            continue
        dataset = volumes.table.dataset(data, out)
        if not dataset.is_file():
            raise BadInput(f"There is no {dataset}. Give the folder that holds the data sets with --data.")
        pretrainings = {arm: pretraining_command(arguments, volumes, dataset, arm, encoder_folder(out, name, arm))
                        for arm in ("gl-mae", "mae") if arm in arguments.arms}
        for arm, command in pretrainings.items():
            perform(encoder_folder(out, name, arm), command)
        command = curve_command(arguments, volumes, dataset, out)
        perform(out / name, command)
        text = write_tables(out / "results", volumes.table, rows_of(out / name), [*pretrainings.values(), command],
                            (data, out))
        times = [f"{arm} {training_time(encoder_folder(out, name, arm))}" for arm in pretrainings]
        sections.append(text + ("\n\nPretraining: " + "; ".join(times) + "." if times else ""))
    write_text(out / "results.md", "\n\n".join([head(arguments), *sections]) + "\n")
    print((out / "results.md").read_text(encoding="utf-8"))
    return DONE


def encoder_folder(out: Path, name: str, arm: str) -> Path:
    """Where the encoder of an arm is trained."""
    return out / f"{name}-encoder-{arm}"


def pretraining_command(arguments: argparse.Namespace, volumes: Volumes, dataset: Path, arm: str,
                        folder: Path) -> list[str]:
    """One encoder of the training images of a set."""
    settings = [f"precision={arguments.precision}", *volumes.pretraining, *arguments.pretrain_set,
                *(WITHOUT_CONSISTENCY if arm == "mae" else ())]
    return ["pretrain", "--dataset", str(dataset), "--method", "gl-mae", "--preset", arguments.preset,
            "--steps", str(arguments.pretrain_steps), "--seed", str(arguments.pretrain_seed),
            *(part for text in settings for part in ("--set", text)), "--out", str(folder)]


def curve_command(arguments: argparse.Namespace, volumes: Volumes, dataset: Path, out: Path) -> list[str]:
    """The points of one table."""
    name = volumes.table.name
    encoders = [f"{arm}={encoder_folder(out, name, arm)}" for arm in ("gl-mae", "mae") if arm in arguments.arms]
    network = [] if encoders else ["--method", "gl-mae", "--preset", arguments.preset]
    settings = [f"input_size={list(volumes.window)}".replace(" ", ""), *arguments.finetune_set]
    return ["curve", "--dataset", str(dataset), *(part for text in encoders for part in ("--encoder", text)), *network,
            "--cases", *(arguments.cases or volumes.table.cases), "--seeds", *arguments.seeds,
            "--arms", *arguments.arms, "--jobs", str(arguments.jobs), "--precision", arguments.precision,
            *(part for text in settings for part in ("--set", text)), "--out", str(out / name)]


def head(arguments: argparse.Namespace) -> str:
    """When, where and how everything was measured."""
    import torch

    return "\n".join([
        "# Label efficiency of GL-MAE", "",
        f"{datetime.date.today().isoformat()}, {processor()}, {os.cpu_count()} cores, "
        f"{'a GPU' if torch.cuda.is_available() else 'no GPU'}, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {arguments.precision} arithmetic; {arguments.jobs} trainings at once; preset "
        f"{arguments.preset}; seeds {', '.join(arguments.seeds)}.", "", "```sh",
        shlex.join(["python", "Testing/benchmarks/gl_mae_labels.py", *sys.argv[1:]]), "```"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"Error: {error}")
