"""Runnable recipes, one file each: data, model, training, tuned values and measured result."""
