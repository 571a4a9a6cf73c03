"""What the engine says, in the words of the panels: what to click, instead of commands and their options.

The engine's messages say what to do with commands of the shell, for it does not know who asks. Their commands and
options are few and always written in the same way; so they are replaced here, wherever a text is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import overload

from MedMAESegmentLib.Translation import tr as _

_NAME = r"[\w.+-]*\w"  # of a job, target or model
_OPTION = r"--[a-z](?:[a-z-]*[a-z])?"


@overload
def inWordsOfThePanel(text: str) -> str: ...


@overload
def inWordsOfThePanel(text: None) -> None: ...


def inWordsOfThePanel(text: str | None) -> str | None:
    """The text, with what to click or choose in the panels for commands and options of the shell."""
    if not text or ("medmae " not in text and "--" not in text and "memory limit" not in text):
        return text
    for pattern, words in _COMMANDS:
        text = pattern.sub(_replaced(words), text)
    text = _DROPPED.sub("", text)
    for option, words in _OPTIONS:
        text = option.sub(_replaced(words), text)
    return text


def _replaced(words: Callable[[], str]) -> Callable[[re.Match[str]], str]:
    """Puts words where something was found; with a capital if it had one, and with its groups in place."""
    def replaced(found: re.Match[str]) -> str:
        text = words().format(**found.groupdict())
        return text[0].upper() + text[1:] if found[0][0].isupper() else text

    return replaced


def _table(*rows: tuple[str, Callable[[], str]]) -> list[tuple[re.Pattern[str], Callable[[], str]]]:
    return [(re.compile(pattern), words) for pattern, words in rows]


# The words are asked for when they are needed: the language of the application is not known at import.
_COMMANDS = _table(
    (rf"\b(?:[Cc]ontinue|[Gg]o on)(?: \w+){{0,3}}?(?: with:?)? (?:--resume|\(medmae job resume {_NAME}\)"
     rf"|medmae job resume {_NAME})", lambda: _("resume the run")),
    (rf"\bthen:? (?:--resume|medmae job resume {_NAME})", lambda: _("then resume the run")),
    (r"\b[Cc]ontinue the (?:curve|whole run) with --resume", lambda: _("resume the run")),
    (rf"medmae job resume {_NAME}", lambda: _("Resume in the tab Runs of MedMAE Train")),
    (rf"\b[Ss]ee: medmae job list(?: --target {_NAME})?(?=;|\.|$)", lambda: _("see the tab Runs of MedMAE Train")),
    (rf": medmae job (?:stop|fetch|logs) {_NAME}", lambda: _(", in the tab Runs of MedMAE Train")),
    (rf"(?:: | with: )medmae job status {_NAME} --wait", lambda: "."),
    (rf"\b(?:[Rr]un )?medmae target check {_NAME} --accept-host-key SHA256:\.\.\.",
     lambda: _("press Check in the list Computers of MedMAE Train and say yes")),
    (rf"\b(?:[Rr]un )?medmae target check {_NAME}",
     lambda: _("press Check in the list Computers of MedMAE Train")),
    (rf"[Cc]hange it: medmae target add(?: (?!--){_NAME})? --replace,? ?(?:with )?",
     lambda: _("edit it in the list Computers of MedMAE Train: ")),
    (rf"medmae target add(?: (?!--){_NAME})? --replace,? ?(?:with )?",
     lambda: _("edit it in the list Computers of MedMAE Train: ")),
    (rf"\b[Aa]dd it with: medmae target add {_NAME}", lambda: _("add it in the list Computers of MedMAE Train")),
    (r"[Ii]nstall it(?: first)?(?: with)?: medmae model install(?: FOLDER)?",
     lambda: _("import it in MedMAE Segment: Manage, Import")),
    (r"\b[Ss]ee: medmae model list", lambda: _("see the list of models")),
    (r"[Tt]ry: medmae doctor", lambda: _("press Check in the section Python of MedMAE Segment")),
    (r"pretrain on it with 'medmae pretrain'", lambda: _("pretrain on it in MedMAE Train")),
    (r"\(medmae finetune --encoder\)", lambda: _("(in MedMAE Train)")),
    (r"[Uu]se it with medmae \w+, or choose", lambda: _("choose")),
    (r"every --channel\b", lambda: _("channel")),
    (r", as medmae segment writes it", lambda: ""),
    (r"close other programs, or set a memory limit",
     lambda: _("close other programs, segment a smaller region, or choose another device at “Compute on”")),
    (r"unload other models, set a memory limit, or use another device",
     lambda: _("segment a smaller region, or choose another device at “Compute on”")),
    (r"the same command with --resume and without a share", lambda: _("to resume")),
    (r"Parts and --resume go on with the same options only: repeat them",
     lambda: _("what is there goes on with the same options only: choose them again")),
    (r"Give either --subset or --cases, not both", lambda: _("choose the cases in one way")),
)

# What only names the option that is meant: in parentheses, or after what it is for.
_DROPPED = re.compile(rf" \({_OPTION}(?: [^()]*)?\)|(?<=path) given with {_OPTION}"
                      rf"|(?<=list|lder|ther| one|gion|thon|e it) with {_OPTION}(?: KEY)?")

_OPTIONS = _table(
    (r"--gpus N \(0: computes without\)", lambda: _("“Graphics cards” (0: computes without)")),
    (r"--gpus (?P<number>\d+)", lambda: _("“Graphics cards” {number}")),
    (r"--gpus", lambda: _("“Graphics cards”")),
    (r"--environment python", lambda: _("“Packages: those of the Python below”")),
    (r"--environment venv", lambda: _("“Packages: installed by MedMAE”")),
    (r"--preamble", lambda: _("“Before it”")),
    (r"--python", lambda: _("“Python”")),
    (r"--container", lambda: _("its container")),
    (r"--wheelhouse", lambda: _("its folder of wheels")),
    (r"--folder", lambda: _("“Folder”")),
    (r"--time", lambda: _("“Time limit”")),
    (r"--kind ssh", lambda: _("the kind over SSH")),
    (r"--device (?P<device>auto or cpu|auto|cpu)", lambda: _("“Compute on: {device}”")),
    (r"--precision (?P<precision>bf16 or fp32|bf16|fp32)", lambda: _("the precision {precision}")),
    (r"--(?:jobs|workers)", lambda: _("processes at once")),
    (r"--format (?P<format>\S+\w)", lambda: _("the format {format}")),
    (r"--base", lambda: _("the labels to keep")),
    (r"--roi", lambda: _("Region")),
    (r"--out", lambda: _("folder for results")),
    (r"--resume", lambda: _("Resume")),
    (r"--encoder none", lambda: _("no encoder")),
    (r"--encoder", lambda: _("an encoder")),
    (r"--dataset", lambda: _("a dataset")),
    (r"--images", lambda: _("images")),
    (r"--labels", lambda: _("the labels")),
    (r"--split", lambda: _("the list")),
    (r"--(?:set|option) (?P<setting>\w+)=", lambda: _("the setting {setting} = ")),
    (r"(?<![\w-])--(?!(?:mem|constraint|array|nv)\b)(?P<option>[a-z]+(?:-[a-z]+)*)",  # not those of Slurm and others
     lambda: _("the option “{option}”")),
)
