"""Export to and import from other formats."""
