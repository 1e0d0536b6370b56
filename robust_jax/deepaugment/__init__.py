"""DeepAugment (Hendrycks et al. 2021): images through perturbed image-to-image networks.

`fit` trains small networks on the user's own images in minutes, `published` reads the published
ones, `distort` applies them. `python -m robust_jax.deepaugment --contact_sheet OUT.png` shows what
comes out.
"""
