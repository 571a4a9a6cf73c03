"""Preparing a pretraining corpus: once, in several processes, resumable, and stopped by no single bad image."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.datasets import Corpus, CorpusWriter
from medmae.datasets.ordered_pool import Interrupted, OrderedPool, Result
from medmae.errors import BadInput, Stopped
from medmae.pretraining.image_preparation import Look, Recipe, first_frame, prepared_source, source_of_frame
from medmae.pretraining.network_grid import VolumeGrids
from medmae.pretraining.outcome_lists import OutcomeList
from medmae.pretraining.sources import PathSources, Source
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
MODULE = "medmae.pretraining.image_preparation"
REPORT_SECONDS = 1.0
WARM_UP_SECONDS = 3.0
SHOWN_AT_MOST = 20
LOUD_SHARE = 0.1


@dataclass(frozen=True)
class PreparationCounts:
    """How the preparation went; over all attempts of a run that was interrupted.

    Attributes:
        sources: images that were given.
        images: images that the corpus holds (a file with several frames gives several).
        skipped: sources that cannot be used, listed in skipped.csv.
        duplicates: images that are stored once although they were given more often, listed in duplicates.csv.
        dropped_slices, dropped_frames: nearly empty slices, and frames above the limit; listed in left_out.csv.
    """

    sources: int
    images: int
    skipped: int
    duplicates: int
    dropped_slices: int
    dropped_frames: int

    def sentence(self) -> str:
        """What a person wants to know, in one line."""
        parts = [f"{self.images} images from {self.sources} sources"]
        named = ((self.skipped, "skipped (skipped.csv)"), (self.duplicates, "duplicates (duplicates.csv)"),
                 (self.dropped_slices, "nearly empty slices dropped"), (self.dropped_frames, "frames left out"))
        return ", ".join([*parts, *(f"{count} {what}" for count, what in named if count)])


class StageProgress:
    """Notes how far a stage has come in the run's progress, about once a second, with the time left."""

    def __init__(self, run: RunFolder, stage: str, total: int) -> None:
        self._run, self._stage, self._total = run, stage, total
        self._begun = time.monotonic()
        self._noted = -REPORT_SECONDS
        self._first: int | None = None

    def note(self, done: int, message: str = "") -> None:
        """`done` of the total are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = done - 1  # what a former attempt did says nothing about the speed
        if now - self._noted < REPORT_SECONDS and done < self._total:
            return
        self._noted = now
        seconds = now - self._begun
        # The first images also wait for the processes to start.
        rate = (done - self._first) / seconds if seconds > WARM_UP_SECONDS else 0.0
        record: dict[str, Any] = {"stage": self._stage, "step": done, "total": self._total,
                                  "seconds": round(seconds, 3),
                                  "eta_s": round((self._total - done) / rate, 1) if rate else None}
        self._run.append_progress(record | ({"message": message} if message else {}))


def look_at_sources(sources: Sequence[Source], axes: str, workers: int, run: RunFolder) -> tuple[
        Sequence[Source], VolumeGrids]:
    """Replace DICOM folders by the images in them; with `axes`, also the grids of all volumes towards them.

    What cannot be read is passed on: preparing it says why.

    Raises:
        Stopped: a stop was asked for.
    """
    wanted = [number for number, source in enumerate(sources)
              if axes or (len(source.images) == 1 and _may_be_folder(source.images[0]))]
    if not wanted:
        return sources, VolumeGrids()
    progress = StageProgress(run, "headers", len(wanted))
    looks: dict[int, Look] = {}
    grids = VolumeGrids()
    pool: OrderedPool[Source] = OrderedPool(MODULE, "look_at", axes, workers)
    try:
        results = pool.run((sources[number] for number in wanted), len(wanted), lambda: run.stop_requested)
        for done, (number, result) in enumerate(zip(wanted, results, strict=True), start=1):
            if result.problem is None:
                look = from_json(Look, result.value, "look")
                grids.spacings_mm += look.spacings_mm
                grids.shapes += look.shapes
                if len(look.parts) > 1 or look.parts[0][0] != sources[number].images[0]:
                    looks[number] = look
            progress.note(done)
    except Interrupted:
        raise Stopped(f"Stopped while reading the headers of {len(wanted)} images, as asked. "
                      "Continue with --resume.") from None
    return (_with_parts(sources, looks) if looks else sources), grids


def _may_be_folder(path: str) -> bool:
    from medmae.volumes.reading import IMAGE_ENDINGS, image_ending

    return image_ending(Path(path)) not in IMAGE_ENDINGS and Path(path).is_dir()


def _with_parts(sources: Sequence[Source], looks: dict[int, Look]) -> Sequence[Source]:
    expanded: list[Source] = []
    if isinstance(sources, PathSources):
        table = PathSources()
        for number, source in enumerate(sources):
            parts = looks[number].parts if number in looks else [(source.images[0], source.series)]
            for part, (path, series) in enumerate(parts, start=1):
                table.append(path, source.modality, series, part)
        return table
    for number, source in enumerate(sources):
        if number not in looks:
            expanded.append(source)
            continue
        expanded += [Source(f"{source.id}//image {part}", (path,), series, source.modality, source.subject)
                     for part, (path, series) in enumerate(looks[number].parts, start=1)]
    return expanded


class Preparation:
    """Writes the corpus of `sources` to `folder`, or goes on with one that was interrupted.

    The corpus and the lists beside it depend on the sources and the recipe alone, not on the number of processes nor on
    interruptions.
    """

    def __init__(self, folder: Path, sources: Sequence[Source], recipe: Recipe, workers: int, run: RunFolder) -> None:
        self._folder, self._sources, self._recipe = folder, sources, recipe
        self._workers, self._run = workers, run
        folder.mkdir(parents=True, exist_ok=True)
        self.skipped = OutcomeList(folder / "skipped.csv", ("file", "reason"))
        self.duplicates = OutcomeList(folder / "duplicates.csv", ("image", "same_as"))
        self.left_out = OutcomeList(folder / "left_out.csv", ("file", "slices", "of_slices", "frames", "of_frames"))
        self._lock = threading.Lock()  # the pool's threads ask what is done while this one writes

    def execute(self) -> tuple[Corpus, PreparationCounts]:
        """Prepare everything that is not done yet.

        Raises:
            BadInput: not a single image can be used, or the folder holds a corpus made in another way.
            Stopped: a stop was asked for; what is written stays.
        """
        settings = {key: value for key, value in to_json(self._recipe).items() if key != "preprocessing"}
        settings["preprocessing"] = {key: value for key, value in to_json(self._recipe.preprocessing).items()
                                     if key != "intensity"}
        try:
            with CorpusWriter(self._folder, settings=settings) as writer:
                self._write(writer)
                self._refuse_nothing(writer)
        finally:
            for each in (self.skipped, self.duplicates, self.left_out):
                each.close()
        corpus = Corpus(self._folder)
        counts = PreparationCounts(len(self._sources), len(corpus), len(self.skipped), len(self.duplicates),
                                   self.left_out.total("slices"), self.left_out.total("frames"))
        self._tell(counts, corpus)
        return corpus, counts

    def _write(self, writer: CorpusWriter) -> None:
        again = self._to_repeat(writer)
        total, started = len(self._sources), len(writer) + len(self.skipped)
        if started:
            log.info("continuing a corpus: %d images are prepared, %d were skipped", len(writer), len(self.skipped))
        progress = StageProgress(self._run, "corpus", total)
        pool: OrderedPool[tuple[int, Source]] = OrderedPool(MODULE, "prepare_numbered", self._recipe, self._workers)
        try:
            for result in pool.run(self._missing(writer, again), total, lambda: self._run.stop_requested):
                with self._lock:
                    self._store(writer, result)
                told = [f"{len(each)} {what}" for each, what in ((self.skipped, "skipped"),
                                                                 (self.duplicates, "duplicates")) if len(each)]
                progress.note(result.task[0] + 1, ", ".join(told))
        except Interrupted:
            raise Stopped(f"Stopped while preparing {total} images, {len(writer)} of which are done, as asked. "
                          "Continue with --resume.") from None

    def _missing(self, writer: CorpusWriter, again: frozenset[str]) -> Iterator[tuple[int, Source]]:
        for number, source in enumerate(self._sources):
            with self._lock:
                ids = (source.id, first_frame(source.id))
                is_done = source.name in self.skipped or any(
                    one in self.duplicates or writer.has(one) for one in ids)
            if not is_done or source.id in again:
                yield number, source

    def _to_repeat(self, writer: CorpusWriter) -> frozenset[str]:
        """Sources of several images, of which a killed run may have dealt with a part: those dealt with last."""
        last = {writer.items.id(len(writer) - 1) if len(writer) else "", self.duplicates.last}
        return frozenset(map(source_of_frame, last)) - last

    def _store(self, writer: CorpusWriter, result: Result[tuple[int, Source]]) -> None:
        source = result.task[1]
        if result.problem is not None:
            if result.trace:
                log.warning("%s: unexpected\n%s", source.name, result.trace)
            self.skipped.add(source.name, result.problem)
            if len(self.skipped) <= SHOWN_AT_MOST:
                log.warning("skipped: %s: %s", source.name, result.problem)
            return
        prepared = prepared_source(result.value)
        if prepared.left_out:
            slices, frames = (prepared.left_out.get(what, (0, 0)) for what in ("slices", "frames"))
            self.left_out.add(source.name, *slices, *frames)
        for image in prepared.images:
            same = None if writer.has(image.id) else writer.same_content(image.sha256)
            if same is not None:
                self.duplicates.add(image.id, same)
                continue
            writer.add(image.id, image.array, image.spacing_mm, image.modality, image.normalisation,
                       subject=source.subject or source.id)

    def _refuse_nothing(self, writer: CorpusWriter) -> None:
        if len(writer):
            return
        shown = [f"  {number}. {file}: {reason}" for number, (file, reason)
                 in enumerate(self.skipped.first(SHOWN_AT_MOST), start=1)]
        more = len(self.skipped) - len(shown)
        raise BadInput("\n".join([f"None of the {len(self._sources)} images can be used:", *shown,
                                  *([f"  ... and {more} more."] if more else []),
                                  "Give other images, or repair these."]))

    def _tell(self, counts: PreparationCounts, corpus: Corpus) -> None:
        log.info("corpus: %s", counts.sentence())
        modalities = corpus.items.count_modalities()
        log.info("modalities: %s", ", ".join(f"{code} {count}" for code, count in modalities.items()))
        if counts.skipped > LOUD_SHARE * counts.sources:
            log.warning("%d of %d images (%.0f %%) could not be used; see %s for the reasons before trusting the "
                        "encoder", counts.skipped, counts.sources, 100 * counts.skipped / counts.sources,
                        self.skipped.file)
