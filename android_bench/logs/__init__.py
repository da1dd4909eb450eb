"""What Google's tools print or save, as values."""
