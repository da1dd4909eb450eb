"""The study: 17 variants and a control, made, measured and reported."""
