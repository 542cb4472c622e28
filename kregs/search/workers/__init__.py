"""One search in several processes: a chief that proposes trials, workers that train them."""
