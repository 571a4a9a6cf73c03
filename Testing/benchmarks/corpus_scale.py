"""How pretraining data scales: preparing images, opening large corpora, drawing from them; extrapolated to 2.5 million.

    python Testing/benchmarks/corpus_scale.py [--images N] [--items N] [--workers N] [--csv FILE]

Images are generated: 512 x 512 pictures of smooth shapes and noise (8 and 16 bit PNG), CT-like NIfTI volumes and DICOM
series. Every part runs in a process of its own, so that its peak of memory is its own. Rates are of everything that
preparing does: listing, reading, normalising, fitting to the network's size, hashing, writing, and starting the
processes. The time of processors is told beside that of the clock, because other programs may share the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

TARGET = 2_500_000
SIDE = 512
KINDS = ("png8", "png16", "nifti", "dicom")
SLICES = {"png8": 1, "png16": 1, "nifti": 64, "dicom": 32}


def picture(seed: int) -> np.ndarray:
    """A picture (512, 512) from 0 to 1 that compresses about as an X-ray does: smooth shapes and some noise."""
    generator = np.random.default_rng(seed)
    shapes = gaussian_filter(generator.normal(size=(SIDE // 8, SIDE // 8)), 3).repeat(8, 0).repeat(8, 1)
    noisy = shapes / np.abs(shapes).max() + generator.normal(0, 0.02, (SIDE, SIDE))
    return np.clip(noisy / 2.4 + 0.5, 0, 1)


def write_images(folder: Path, kind: str, slices: int) -> None:
    """Write files with about `slices` slices of `kind` to `folder`."""
    import SimpleITK as sitk

    pattern = [picture(seed) for seed in range(8)]
    for number in range(max(1, slices // SLICES[kind])):
        generator = np.random.default_rng(number)
        shift = generator.integers(0, SIDE, 2)
        planes = [np.roll(pattern[(number + place) % 8], shift + place, (0, 1)) for place in range(SLICES[kind])]
        if kind.startswith("png"):
            top, dtype = (255, np.uint8) if kind == "png8" else (65535, np.uint16)
            sitk.WriteImage(sitk.GetImageFromArray((planes[0] * top).astype(dtype)), str(folder / f"{number:06d}.png"))
        elif kind == "nifti":
            volume = (np.stack(planes) * 2000 - 1000).astype(np.int16)
            sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"{number:06d}.nii.gz"))
        else:
            write_series(folder / f"{number:06d}", planes, number)


def write_series(folder: Path, planes: list[np.ndarray], number: int) -> None:
    """An uncompressed CT series, a file a slice."""
    import SimpleITK as sitk

    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for place, plane in enumerate(planes):
        image = sitk.GetImageFromArray((plane * 2000 - 1000).astype(np.int16)[None])
        image.SetSpacing([0.7, 0.7, 2.0])
        for tag, text in (("0008|0060", "CT"), ("0020|000e", f"1.2.{number}"), ("0020|0037", "1\\0\\0\\0\\1\\0"),
                          ("0020|0032", f"0\\0\\{2 * place}"), ("0008|0018", f"1.2.{number}.{place + 1}")):
            image.SetMetaData(tag, text)
        writer.SetFileName(str(folder / f"{place:04d}.dcm"))
        writer.Execute(image)


def prepare(images: str, corpus: str, workers: str, size: str) -> dict[str, float]:
    """Prepare a VIS-MAE corpus of `images`; seconds and what came out."""
    from medmae.datasets.preprocessing import Preprocessing
    from medmae.pretraining.image_preparation import Recipe
    from medmae.pretraining.preparation import Preparation, look_at_sources
    from medmae.pretraining.sources import sources_of_images
    from medmae.run_folder import RunFolder
    from medmae.volumes import Intensity

    recipe = Recipe("vis-mae", Preprocessing(2, "LPS", None, (int(size), int(size)), (Intensity("robust"),)))
    run = RunFolder(Path(corpus).parent / "run")
    run.path.mkdir(exist_ok=True)
    begun = time.monotonic()
    sources, _ = look_at_sources(sources_of_images([images]), "", int(workers), run)
    made, counts = Preparation(Path(corpus), sources, recipe, int(workers), run).execute()
    seconds, processors = time.monotonic() - begun, processor_seconds()
    assert counts.skipped == 0, "a generated image could not be read"
    slices = int(made.items.shapes[:, 1].sum())
    pixels = sum(file.stat().st_size for file in Path(corpus).glob("shard-*.bin"))
    listing = (Path(corpus) / "corpus.json").stat().st_size
    return {"seconds": seconds, "processor_seconds": processors, "slices": slices,
            "pixel_bytes": pixels / slices, "json_bytes": listing / len(made)}


def write_listing(folder: Path, items: int) -> None:
    """A corpus.json with `items` lines as preparing pictures makes them, and shards of the right size without data."""
    from medmae.datasets.corpus_file import write_corpus_file
    from medmae.datasets.corpus_items import CorpusItem
    from medmae.pretraining.modality import COLOUR

    normalisation = {"intensity": [{"kind": "xray", "low": 0.5, "high": 99.5, "mean": 0.0, "std": 1.0}]}
    each = 224 * 224 * 2
    per_shard = (1 << 30) // each

    def lines() -> object:
        for number in range(items):
            identifier = f"site{number % 17:02d}/patient{number // 8:07d}/image{number % 8}.png"
            yield CorpusItem(identifier, number // per_shard, number % per_shard * each, (1, 1, 224, 224),
                             (1.0, 1.0, 1.0), ("DX", "CT", "MR", "US", COLOUR)[number % 5], normalisation,
                             f"{number:064x}", None, None, identifier)

    write_corpus_file(folder / "corpus.json", {"method": "vis-mae"}, lines())  # type: ignore[arg-type]
    for shard in range(-(-items // per_shard)):
        with open(folder / f"shard-{shard:05d}.bin", "wb") as file:
            file.truncate(min(per_shard, items - shard * per_shard) * each)  # sparse


def open_columns(folder: str) -> dict[str, float]:
    """Open a corpus as training does, make an epoch's balanced order and build some items."""
    from medmae.datasets import Corpus
    from medmae.training.balanced_order import BalancedOrder

    imported, begun = processor_seconds(), time.monotonic()
    corpus = Corpus(folder)
    opened, used = time.monotonic() - begun, processor_seconds() - imported
    memory = peak_bytes()
    begun = time.process_time()
    order = BalancedOrder(corpus.items.modality_numbers, 0.5, 0)
    order.batch(0, 1)
    ordered = time.process_time() - begun
    begun = time.process_time()
    for draw in order.batch(0, 2000):
        assert corpus.items[draw.item].id
    return {"seconds": opened, "processor_seconds": used, "peak_bytes": memory, "order_seconds": ordered,
            "item_microseconds": (time.process_time() - begun) / 2000 * 1e6, "items": len(corpus)}


def open_objects(folder: str) -> dict[str, float]:
    """What opening was before: the whole JSON at once, and a checked object for every item."""
    from medmae.datasets.corpus_items import item_from_json
    from medmae.files import read_json

    imported, begun = processor_seconds(), time.monotonic()
    data = read_json(Path(folder) / "corpus.json", "corpus")
    items = [item_from_json(entry, "corpus") for entry in data["items"]]
    return {"seconds": time.monotonic() - begun, "processor_seconds": processor_seconds() - imported,
            "peak_bytes": peak_bytes(), "items": len(items)}


def nothing() -> dict[str, float]:
    """The memory of a process that has only imported what the others import."""
    import medmae.datasets
    import medmae.training.balanced_order  # noqa: F401

    return {"peak_bytes": peak_bytes()}


def processor_seconds() -> float:
    """What this process and its ended children have used of the processors so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage tells the peak of the parent where that was higher
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


PARTS = {"prepare": prepare, "open_columns": open_columns, "open_objects": open_objects, "nothing": nothing}


def in_process(part: str, *arguments: str) -> dict[str, float]:
    """Run a part in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--part", part, *arguments], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.exit(f"{part} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def preparing(folder: Path, slices: int, workers: int, size: int) -> list[dict[str, object]]:
    """Measure the preparation of every kind with 1 and with `workers` processes."""
    rows: list[dict[str, object]] = []
    print(f"\nPreparing for {size} x {size}: {slices} slices of {SIDE} x {SIDE} of each kind")
    print(f"{'kind':6} {'workers':>7} {'slices/s':>9} {'MB/s read':>9} {'CPU ms/slice':>12} {'slices/s/core':>13} "
          f"{'core-hours for 2.5 M':>20} {'pixel bytes':>11} {'JSON bytes':>10}")
    for kind in KINDS:
        images = folder / kind
        images.mkdir()
        write_images(images, kind, slices)
        read = sum(file.stat().st_size for file in images.rglob("*") if file.is_file())
        for count in dict.fromkeys((1, workers)):
            found = in_process("prepare", str(images), str(folder / f"corpus {kind} {count}"), str(count), str(size))
            rate = found["slices"] / found["seconds"]
            of_core = found["slices"] / found["processor_seconds"]
            rows.append({"what": "prepare", "kind": kind, "workers": count, "slices": found["slices"],
                         "seconds": round(found["seconds"], 2), "slices_per_second": round(rate, 1),
                         "megabytes_per_second": round(read / found["seconds"] / 1e6, 2),
                         "processor_ms_per_slice": round(1000 / of_core, 2),
                         "slices_per_second_and_core": round(of_core, 1),
                         "core_hours_for_2.5_million": round(TARGET / of_core / 3600, 2),
                         "pixel_bytes_per_slice": round(found["pixel_bytes"]),
                         "json_bytes_per_item": round(found["json_bytes"])})
            print(f"{kind:6} {count:7} {rate:9.1f} {read / found['seconds'] / 1e6:9.1f} {1000 / of_core:12.1f} "
                  f"{of_core:13.1f} {TARGET / of_core / 3600:20.1f} {found['pixel_bytes']:11.0f} "
                  f"{found['json_bytes']:10.0f}")
    return rows


def opening(folder: Path, items: int, objects: int) -> list[dict[str, object]]:
    """Measure opening a corpus of `items` pictures, and how it was before for `objects` of them."""
    floor = in_process("nothing")["peak_bytes"]
    rows: list[dict[str, object]] = []
    for part, count in (("open_columns", items), ("open_objects", objects)):
        made = folder / part
        made.mkdir()
        write_listing(made, count)
        size = (made / "corpus.json").stat().st_size
        found = in_process(part, str(made))
        each = (found["peak_bytes"] - floor) / count
        rows.append({"what": part, "items": count, "seconds": round(found["seconds"], 2),
                     "peak_bytes": int(found["peak_bytes"]), "bytes_per_item": round(each),
                     "processor_seconds": round(found["processor_seconds"], 2),
                     "microseconds_per_item": round(found["processor_seconds"] / count * 1e6, 2)})
        print(f"\n{part}: {count} items, corpus.json {size / 1e6:.0f} MB ({size / count:.0f} bytes an item): "
              f"{found['seconds']:.1f} s ({found['processor_seconds']:.1f} s of a processor), peak "
              f"{found['peak_bytes'] / 1e6:.0f} MB ({each:.0f} bytes an item above the {floor / 1e6:.0f} MB of the "
              "imports)")
        print(f"  for 2.5 million: {found['processor_seconds'] / count * TARGET:.0f} s of a processor, "
              f"{each * TARGET / 1e9:.2f} GB")
        if "order_seconds" in found:
            rows[-1] |= {"order_seconds": round(found["order_seconds"], 3)}
            print(f"  an epoch's balanced order of {count} draws: {found['order_seconds']:.2f} s; an item on demand: "
                  f"{found['item_microseconds']:.1f} microseconds")
    return rows


def main() -> None:
    """Measure and print; with --csv also write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=384, help="slices of each kind to prepare")
    parser.add_argument("--items", type=int, default=TARGET, help="items of the large corpus to open")
    parser.add_argument("--objects", type=int, default=50_000, help="items to open as before, for comparison")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--size", type=int, default=224, help="input size of the network: 224 for base, 112 for tiny")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part[0]](*arguments.part[1:])))
        return
    with tempfile.TemporaryDirectory(prefix="corpus-scale-") as name:
        rows = preparing(Path(name), arguments.images, arguments.workers, arguments.size)
        rows += opening(Path(name), arguments.items, arguments.objects)
    each = max(float(str(row["pixel_bytes_per_slice"])) for row in rows if row["what"] == "prepare")
    print(f"\nThe pixels of 2.5 million slices at {arguments.size} x {arguments.size}: {each * TARGET / 1e9:.0f} GB")
    if arguments.csv:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with open(arguments.csv, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
