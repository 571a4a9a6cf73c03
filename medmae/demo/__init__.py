"""The demonstration: synthetic patients, and the whole chain from pretraining to scores on them in minutes."""

from medmae.demo.run import DemoFailed, run_demo

__all__ = ["DemoFailed", "run_demo"]
