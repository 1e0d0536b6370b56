"""Every test runs on four fake CPU devices and without a network."""

import os

import hypothesis

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Tests do not assert times: a machine may be busy.
hypothesis.settings.register_profile("robust_jax", deadline=None)
hypothesis.settings.load_profile("robust_jax")
