"""Augmentations as batched JAX functions of images and keys, for the accelerator.

An augmented image depends on its own pixels and its own key only: not on the rest of the batch,
its size, or the devices that share it. `python -m robust_jax.augment --contact_sheet OUT.png`
shows them.
"""
