"""What a phone's meters say, and the joules of one inference."""
