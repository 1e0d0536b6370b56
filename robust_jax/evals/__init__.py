"""Evaluation: the metrics, and the evaluators that collect what the metrics need."""
