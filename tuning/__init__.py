"""Studies, one file each: how a recipe's values were found. `results/` holds what they measured."""
