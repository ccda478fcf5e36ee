"""What a person tells a model about a structure, and the file that keeps it; no torch."""
