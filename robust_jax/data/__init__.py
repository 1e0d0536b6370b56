"""The way of the data: sources, ops and resumable batches.

`sources`, `images`, `order` and `registry` do not import TensorFlow; `pipeline` and the op modules
do.
"""
