"""What can be known of a network without data: inputs made from its own statistics, and weights rounded by them."""
