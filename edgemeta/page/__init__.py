"""What a browser gets: pages of one file that ask no network, run no script, and are read on a phone or printed."""
