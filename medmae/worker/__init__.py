"""A process that keeps models loaded and answers requests on its own pipes (docs/worker.md).

``python -m medmae.worker`` is the process; `medmae.worker.client` starts and follows one, with the standard library
alone. Importing this package imports nothing.
"""
