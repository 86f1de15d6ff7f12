"""The commands of `hf-l3rs`, one a file; recipes are thin over the same functions."""
