"""Matrices as low rank plus sparse: plain functions from arrays to factors."""
