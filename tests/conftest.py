"""Every test runs on four fake CPU devices and without a network."""

import os

import hypothesis

# The same operations in code that is compiled faster: most of what tests take is compiling.
FLAGS = (
    "--xla_force_host_platform_device_count=4",
    "--xla_backend_optimization_level=1",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Tests do not assert times: a machine may be busy.
hypothesis.settings.register_profile("robust_jax", deadline=None)
hypothesis.settings.load_profile("robust_jax")
