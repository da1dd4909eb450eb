"""What a person reads: one page, advice, and two runs compared."""
