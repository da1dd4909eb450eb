"""What the commands of `tfcompress` do: flags in, one function called, what it gives printed. No logic."""
