"""How a job on another computer stands, in words for those who wait for it."""

from __future__ import annotations

from typing import Any

from MedMAESegmentLib.FollowedJob import asSentence, describe, duration
from MedMAESegmentLib.Translation import tr as _


def progressOf(status: Any, target: str) -> tuple[float, str]:
    """How far a job is, from 0 to 1, and what is being done; `status` is a `medmae.jobs.following.Status`."""
    isCounted = status.state != "submitting" and status.step and status.total
    done = status.step / status.total if isCounted else 0.0
    if status.state == "unreachable" or (status.state == "submitting" and status.reason):
        text = _("{target} does not answer at the moment: {reason}")
        return done, text.format(target=target, reason=asSentence(status.reason or ""))
    if status.state == "running" and isCounted:
        return done, describe({"stage": status.stage or "step", "step": status.step, "total": status.total,
                               "eta_s": status.eta_s})
    if status.state == "submitting":
        text = _("Sending to {target}")
    elif status.state == "queued":
        text = _("Waiting until {target} begins")
    else:
        text = _("{target} begins")
    text = text.format(target=target) + (f" ({status.queue})" if status.queue else "")
    if status.eta_s is not None:
        text = _("{progress}, about {time} left").format(progress=text, time=duration(status.eta_s))
    return done, text
