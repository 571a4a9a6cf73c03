"""What the tab "Runs" says."""

from __future__ import annotations

from datetime import datetime
from functools import cache

from MedMAESegmentLib.FollowedJob import asSentence, duration
from slicer.i18n import tr as _

from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunHistory import SCORES, RunHistory
from MedMAETrainLib.RunStatus import RunStatus


@cache
def _words() -> dict[str, str]:
    """Tasks and states in words; made once, because looking up a translation takes its time."""
    return {"pretraining": _("Pretraining"), "segmentation": _("Segmentation"), "classification": _("Classification"),
            "waiting": _("Waiting"), "submitting": _("Uploading"), "queued": _("Queued"), "running": _("Running"),
            "stopping": _("Stopping"), "stopped": _("Stopped"), "done": _("Done"), "failed": _("Failed"),
            "interrupted": _("Interrupted"), "unreachable": _("No answer")}


@cache
def _explanations() -> dict[str, str]:
    """What is to be known of some states, where the run says nothing itself."""
    return {"waiting": _("Begins when the runs before it have ended."),
            "submitting": _("Its data is on the way to {target}."),
            "queued": _("Has not begun yet."),
            "stopping": _("Stops after this step; what was learned so far is kept."),
            "interrupted": _("It ended without a word; its computer may have been switched off."),
            "unreachable": _("{target} does not answer; the run goes on there.")}


def taskText(entry: RunEntry) -> str:
    """What a run does."""
    return _words().get(entry.task, entry.task)


def placeText(entry: RunEntry) -> str:
    """Where a run computes, and on which device as far as that is known."""
    place = entry.target or _("this computer")
    return f"{place} ({entry.status.device})" if entry.status.device else place


def kindText(entry: RunEntry) -> str:
    """What a run does and where, as short as can be: this computer is where nothing else is said."""
    return ", ".join(filter(None, (taskText(entry), entry.target, entry.status.device)))


def stateText(status: RunStatus) -> str:
    """The state in a word or two."""
    return _words().get(status.state, status.state)


def timeText(status: RunStatus) -> str:
    """The time left, "" where nobody knows."""
    if status.etaSeconds is None or status.state not in ("submitting", "running"):
        return ""
    return _("{time} left").format(time=duration(status.etaSeconds))


def startedText(entry: RunEntry, now: datetime | None = None) -> str:
    """When a run was started, in two short lines: ``today`` or the day, and the time or the year."""
    try:
        started = datetime.fromisoformat(entry.started).astimezone()
    except (ValueError, OverflowError, OSError):  # damaged, or a year that has no local time
        return _("not known")
    current = (now or datetime.now()).astimezone()
    if started.date() == current.date():
        return _("today") + f"\n{started:%H:%M}"
    return f"{started:%d %b}\n" + (f"{started:%H:%M}" if started.year == current.year else f"{started:%Y}")


def stepText(status: RunStatus) -> str:
    """How far a run is: ``Step 400 of 1000, about 12 min left``."""
    if not status.step or not status.total or status.state == "done":
        return ""
    stage = "" if status.stage in (None, "train") else _stageText(str(status.stage))
    text = _("{stage}: {step} of {total}") if stage else _("Step {step} of {total}")
    text = text.format(stage=stage, step=status.step, total=status.total)
    left = timeText(status)
    return _("{progress}, about {time}").format(progress=text, time=left) if left else text


def _stageText(stage: str) -> str:
    """What is done before and after training."""
    if stage.startswith("corpus"):  # "corpus", "corpus of training cases"
        return _("Preparing images")
    known = {"validate": _("Checking cases"), "headers": _("Looking at images")}
    text = known.get(stage) or stage.replace("_", " ").strip()
    return f"{text[:1].upper()}{text[1:]}"


def statusText(entry: RunEntry) -> str:
    """All that a person should know of how a run stands."""
    status = entry.status
    explained = _explanations().get(status.state, "").format(target=entry.target)
    lines = [stepText(status), status.queue or ""]
    if status.state == "unreachable" and status.seen is not None:
        when = datetime.fromtimestamp(status.seen).astimezone()
        lines.append(_("Last seen {when}.").format(when=f"{when:%Y-%m-%d %H:%M}"))
    told = [asSentence(part) for part in (status.reason, status.remedy) if part]
    lines += [" ".join(told) if told else explained]
    if status.state == "unreachable" and told:
        lines.insert(0, explained)
    return "\n".join(line for line in lines if line)


def scoreText(history: RunHistory) -> str:
    """How well it does: ``Dice 0.81 at step 400, best 0.83 at step 300``; "" where nothing was scored yet."""
    if history.score is None:
        return ""
    curve = history.curves[history.score]
    name, last, best = SCORES[history.score], len(curve) - 1, int(curve.values.argmax())
    text = _("{name} {value} at step {step}").format(name=name, value=f"{curve.values[last]:.2f}",
                                                     step=int(curve.steps[last]))
    if best != last and curve.values[best] > curve.values[last]:
        text = _("{now}, best {value} at step {step}").format(now=text, value=f"{curve.values[best]:.2f}",
                                                              step=int(curve.steps[best]))
    return text


def lossText(history: RunHistory) -> str:
    """Where the loss has come to: ``Loss 0.213, 1.52 at the beginning``."""
    loss = history.curves["loss"].values
    if not len(loss):
        return ""
    few = max(min(len(loss) // 10, 20), 1)
    return _("Loss {now}, {before} at the beginning").format(now=f"{loss[-few:].mean():.3g}",
                                                             before=f"{loss[:few].mean():.3g}")


def toolTip(entry: RunEntry) -> str:
    """Everything that the row of a run tells, in full."""
    lines = [entry.name, _("{task} on {place}").format(task=taskText(entry), place=placeText(entry)),
             _("Started {when}").format(when=startedText(entry).replace("\n", " ")),
             f"{stateText(entry.status)}: {statusText(entry)}".rstrip(": \n")]
    return "\n".join(lines)
