"""The demonstration: synthetic patients, and the whole chain from pretraining to scores on them in minutes."""
