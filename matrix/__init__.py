"""The compatibility matrix: compiled from the rules, proven by runs. It holds no verdict; it asks the resolver."""
