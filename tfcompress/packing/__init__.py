"""Coders of the `.tfcp` container, one idea a file; `tfcompress.pack` puts them together, `unpack.c` reads them all."""
