"""What runs on a target: needs Python 3.11 there and nothing else.

The source of this package and of the few modules below it travels with every call (see ``medmae.jobs.transport``), so
that nothing has to be installed before it works, and both sides are always of the same version. Each module holds
operations: functions ``operation(arguments, channel)`` that take and return what JSON can hold.
"""
