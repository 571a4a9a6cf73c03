"""What pretraining reads: images without their labels, or a prepared corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medmae.config import from_json
from medmae.datasets import Corpus, CorpusItem, load_dataset
from medmae.datasets.corpus_file import write_corpus_file
from medmae.datasets.corpus_items import CORPUS_FILE, shard_name
from medmae.errors import BadInput
from medmae.jobs.gathering import INPUTS, Gathering, described, image_place, neutral_ids
from medmae.jobs.neutral_images import Part, Wanted
from medmae.pretraining.config import PretrainConfig
from medmae.pretraining.sources import Source, pretraining_cases, sources_of_cases, sources_of_images

SHOWN_AT_MOST = 20
CORPUS_FILES = ("preprocessing.json", "preparation.json")


def gather_sources(gathering: Gathering, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The images of a dataset's lists, or of files, folders, patterns and lists; those that cannot be used stay here.

    Raises:
        BadInput: there are none, or not one can be used.
    """
    head: dict[str, Any] = {}
    sources: Sequence[Source]
    if inputs.get("dataset"):
        dataset = load_dataset(inputs["dataset"])
        sources = sources_of_cases(pretraining_cases(dataset, inputs.get("split")))
        head = {key: value for key, value in described(dataset).items() if key in ("name", "channel_names")}
    elif inputs.get("images"):
        sources = sources_of_images(inputs["images"])
    else:
        raise BadInput("There is nothing to pretrain on. Give --dataset, --images or a prepared corpus.")
    at_most = from_json(PretrainConfig, config, "pretraining configuration").frames
    wanted = [Wanted(path, source.series, at_most=at_most if len(source.images) == 1 else None)
              for source in sources for path in source.images]
    converted = gathering.staging.convert(wanted, gathering.report)
    items = [item for name, source in zip(neutral_ids(len(sources)), sources, strict=True)
             for item in _items(gathering, name, source, [next(converted) for _ in source.images])]
    next(converted, None)  # the last report
    if not items:
        raise BadInput(_nothing(gathering, len(sources)))
    return {"dataset": gathering.add_json("dataset.json", {**head, "unlabeled": items})}


def _items(gathering: Gathering, name: str, source: Source, channels: list[list[Part]]) -> Iterator[dict[str, Any]]:
    """The items of a source; several where its file or folder holds several images."""
    subject = source.subject or source.id
    record = {"images": list(source.images), "id": source.id, "subject": subject}
    about = {"subject": gathering.subject(subject), **({"modality": source.modality} if source.modality else {})}
    if len(channels) > 1:
        blobs = [parts[0].blob for parts in channels]
        problem = next((parts[0].problem for parts in channels if parts[0].blob is None), None)
        if problem is not None:
            gathering.unreadable.append({"image": source.name, "reason": problem})
            return
        images = [image_place(name, number) for number in range(len(blobs))]
        for place, blob in zip(images, blobs, strict=True):
            assert blob is not None
            gathering.add_blob(place, blob)
        gathering.cases[name] = record
        yield {"id": name, "image": images, **about}
        return
    for number, part in enumerate(channels[0], start=1):
        if part.blob is None:
            gathering.unreadable.append({"image": part.name or source.name, "reason": part.problem})
            continue
        one = name if len(channels[0]) == 1 else f"{name}-image-{number}"
        gathering.add_blob(image_place(one), part.blob)
        gathering.cases[one] = record
        yield {"id": one, "image": image_place(one), **about}


def _nothing(gathering: Gathering, sources: int) -> str:
    shown = [f"  {number}. {one['image']}: {one['reason']}"
             for number, one in enumerate(gathering.unreadable[:SHOWN_AT_MOST], start=1)]
    more = len(gathering.unreadable) - len(shown)
    return "\n".join([f"None of the {sources} images can be used:", *shown,
                      *([f"  ... and {more} more."] if more else []), "Give other images, or repair these."])


def gather_corpus(gathering: Gathering, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A prepared corpus under neutral ids, without its labels."""
    corpus = Corpus(inputs["corpus"])
    names = neutral_ids(len(corpus))

    def items() -> Iterator[CorpusItem]:
        for name, item in zip(names, corpus.items, strict=True):
            gathering.cases[name] = {"images": [], "id": item.id, "subject": item.subject or item.id}
            yield dataclasses.replace(item, id=name, subject=gathering.subject(item.subject or item.id), label=None,
                                      target=None)

    gathering.add_blob(f"corpus/{CORPUS_FILE}", gathering.staging.add_made(
        lambda path: write_corpus_file(path, corpus.settings, items()), ".json"))
    for number in sorted({shard for kind, shard in corpus.items.needed_bytes() if kind == "shard"}):
        name = shard_name("shard", number)
        gathering.add_blob(f"corpus/{name}", gathering.staging.add_file(corpus.folder / name))
    for name in CORPUS_FILES:
        if (corpus.folder / name).is_file():
            gathering.add_blob(f"corpus/{name}", gathering.staging.add_file(corpus.folder / name))
    return {"corpus": f"{INPUTS}/corpus"}
