"""The way of the data: sources, ops and resumable batches.

Only `pipeline`, the op modules and, when a TFDS source is loaded, `tfds_source` import TensorFlow.
"""
