"""One module a claim; its docstring's first line is the claim, `Source:` says where it is from."""
