"""The ways in which work ends early, shared by every package."""


class BadInput(Exception):
    """The user's input cannot be used; ends a command with exit code 2.

    The message says what happened, what it means and what to do, in that order.
    """


class Stopped(Exception):
    """The user asked for a graceful stop; everything computed so far is on disk."""


class PartialFailure(Exception):
    """Some cases failed and the others are done and on disk; ends a command with exit code 1.

    The message lists the failed cases with their reasons.
    """


class ProcessLost(Exception):
    """Another process of the run ended or does not answer; what is on disk can be continued."""
