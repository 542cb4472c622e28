"""How trials are scored, chosen and compared."""
