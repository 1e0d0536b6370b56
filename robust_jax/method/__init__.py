"""The method: three heads on a tuned tail, their losses, and the choice between them."""
